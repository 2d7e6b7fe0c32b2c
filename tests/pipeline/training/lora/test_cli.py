"""`python -m pipeline train lora`: what it needs, prints and writes."""

from pathlib import Path

import pytest

from pipeline.__main__ import main


def command(capsys, *argv) -> tuple[int, str, str]:
    code = main(["train", "lora", *(str(a) for a in argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.quick
def test_missing_pictures_and_flags_are_one_sentence(capsys, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    code, _, err = command(
        capsys, "--images", folder, "--name", "zog", "--prompt", "a red apple", "--model", "emoji"
    )
    assert code == 2 and "holds no picture" in err and "Traceback" not in err
    code, _, err = command(capsys, "--images", folder, "--name", "zog")
    assert code == 2 and "needs --prompt" in err


def test_trained_and_resumed_from_the_command_line(capsys, tmp_path, tiny_model, dots):
    folder = tmp_path / "pictures"
    folder.mkdir()
    what = ["--images", folder, "--name", "zog", "--prompt", "a red apple", "--model", tiny_model]
    dots()[0].save(folder / "one.png")
    few = ["--steps", 2, "--rank", 2, "--batch", 1, "--previews", 1, "--device", "cpu"]
    code, out, err = command(capsys, *what, *few)
    assert code == 0 and "models/lora/zog.safetensors: step 2" in out
    assert "Note: One picture teaches" in err and "a red apple <lora:zog:1>" in out
    assert command(capsys, *what, *few)[0] == 2
    code, out, _ = command(capsys, *what, *few[2:], "--steps", 3, "--resume")
    assert code == 0 and "step 3" in out and not Path("runs/data").exists()
