"""`python -m pipeline TASK`: files that keep their text; for bad input one sentence and code 2."""

import pytest
from PIL import Image

from pipeline.metadata.infotext import parse, read


def test_generate_writes_a_png_that_keeps_its_text(run, tmp_path, tiny_model):
    out = tmp_path / "a.png"
    code, printed, _ = run(
        *("generate", "a red apple", "--model", tiny_model, "--steps", 2, "--seed", 7),
        *("--sampler", "dpmpp_2m", "--device", "cpu", "-o", out),
    )
    assert code == 0 and Image.open(out).size == (64, 64)
    found = parse(read(out))
    assert (found["Prompt"], found["Seed"], found["Sampler"]) == ("a red apple", "7", "DPM++ 2M")
    assert str(out) in printed and "attention" in printed
    code, printed, _ = run("info", out)
    assert code == 0 and parse(printed)["Steps"] == "2"


def test_generate_several(run, tmp_path, tiny_model):
    code, _, _ = run(
        *("generate", "", "--model", tiny_model, "--steps", 1, "--count", 2, "--size", "72x64"),
        *("--device", "cpu", "-o", tmp_path / "b.png"),
    )
    assert code == 0
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["b-1.png", "b-2.png"]
    assert Image.open(tmp_path / "b-1.png").size == (72, 64)


BAD = {
    "sampler": (["--sampler", "eulr"], "no sampler 'eulr'; there is euler"),
    "schedule": (["--schedule", "karas"], "there is karras"),
    "pair": (["--sampler", "ddim", "--schedule", "karras"], "karras"),
    "steps": (["--steps", "0"], "Steps must be a whole number from 1 to 200"),
    "steps text": (["--steps", "many"], "not 'many'"),
    "cfg": (["--cfg", "nan"], "Cfg must be a number"),
    "seed": (["--seed", "-1"], "Seed must be"),
    "count": (["--count", "1e308"], "Count must be"),
    "size": (["--size", "128"], "WIDTHxHEIGHT"),
    "size of 8": (["--size", "130x128"], "multiple of 8"),
    "model": (["--model", "emojy"], "emoji"),
    "model path": (["--model", "/nowhere/at/all"], "/nowhere/at/all"),
    "device": (["--device", "gpu"], "cpu"),
    "attention": (["--attention", "spda"], "there is sdpa"),
    "group norm": (["--group-norm", "x"], "torch"),
    "folder": (["-o", "/nowhere/a.png"], "does not exist"),
    "ending": (["-o", "a.bmp"], ".png"),
    "flag": (["--stepps", "3"], "--stepps"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_sentence_and_exit_code_2(run, tiny_model, tmp_path, name):
    flags, sentence = BAD[name]
    base = ["generate", "a cat", "--steps", "1"]
    if "--model" not in flags:
        base += ["--model", str(tiny_model)]
    if "-o" not in flags:
        base += ["-o", str(tmp_path / "x.png")]
    code, out, err = run(*base, *flags)
    assert code == 2 and sentence in err
    assert err.count("\n") == 1 and "Traceback" not in err and out == ""
    assert not list(tmp_path.iterdir())


def test_long_prompt_and_bad_letters(run, tmp_path):
    for prompt, sentence in (("x" * 10_001, "10,001"), ("a\0b", "NUL"), ("\ud800", "surrogate")):
        code, _, err = run("generate", prompt, "-o", tmp_path / "x.png")
        assert code == 2 and sentence in err


def test_cuda_where_there_is_none(run, tiny_model, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    out = tmp_path / "x.png"
    code, _, err = run("generate", "x", "--model", tiny_model, "--device", "cuda", "-o", out)
    assert code == 2 and "cuda" in err.lower()
