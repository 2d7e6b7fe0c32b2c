"""`python -m pipeline samplers`, `backends`, `models` and `info`."""


def test_lists(run):
    from pipeline.samplers import SAMPLERS, SCHEDULES

    code, out, _ = run("samplers")
    assert code == 0 and all(name in out for name in [*SAMPLERS, *SCHEDULES])
    code, out, _ = run("backends", "--device", "cpu")
    assert code == 0 and "sdpa" in out and "xformers" in out and "not here: " in out
    code, out, _ = run("models")
    assert code == 0 and "emoji" in out


def test_info_of_what_is_none(run, tmp_path):
    code, _, err = run("info", tmp_path / "none.png")
    assert code == 2 and "no file" in err
