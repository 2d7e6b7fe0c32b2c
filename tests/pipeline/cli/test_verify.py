"""The command `verify`: its exit codes and its sentences."""

from pipeline.__main__ import main


def run(capsys, *argv) -> tuple[int, str, str]:
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_line(
    capsys, models, tiny_model, tmp_path, signed_png, input_files, draw, rewritten
):
    here = ("--model", tiny_model, "--device", "cpu")
    code, out, _ = run(capsys, "verify", signed_png, *here)
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "Identical")
    code, out, _ = run(capsys, "verify", signed_png, *here, "--attention", "math")
    assert (code, out.splitlines()[0].split(":")[0]) == (1, "Departs")
    assert "attention was sdpa, is math" in out
    rewritten(signed_png, lambda about: about.update(task="hires"), digest=False)
    code, out, _ = run(capsys, "verify", signed_png, *here)
    assert (code, out.splitlines()[0].split(":")[0]) == (1, "Tampered with")
    picture = str(input_files[0])
    path = draw(models, tmp_path, "image_to_image", picture=picture, strength=0.5)[0]
    assert run(capsys, "verify", path, *here, "--picture", picture)[0] == 0
    for argv, sentence in (
        (("verify", path, *here), "--picture FILE"),
        (("verify", path, "--picture", picture), "made with the model tiny"),
        (("verify", tmp_path / "none.png"), "There is no file"),
        (("verify", picture), "carries no receipt"),
    ):
        code, out, err = run(capsys, *argv)
        assert code == 2 and sentence in err and err.count("\n") == 1 and not out
