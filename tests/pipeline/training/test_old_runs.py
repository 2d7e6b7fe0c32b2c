"""A training that was begun by an older version goes on from its checkpoint."""

import csv
import shutil
from pathlib import Path

import pytest

from pipeline.cli import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.quick
def test_a_run_of_version_0_1_0_resumes(tmp_path, monkeypatch, capsys):
    """tests/data/run: `train lora ... --steps 4`, by the version before the folders were moved."""
    run = tmp_path / "run"
    shutil.copytree(ROOT / "tests/data/run", run)
    monkeypatch.chdir(tmp_path)
    argv = ["train", "lora", "--images", str(ROOT / "examples/zog"), "--name", "zog"]
    argv += ["--prompt", "zog the creature", "--rank", "1", "--layers", "attention"]
    argv += ["--size", "64", "--steps", "6", "--run", str(run), "--resume", "--device", "cpu"]
    assert main(argv) == 0
    assert "step 6" in capsys.readouterr().out
    with (run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4", "6"]
    # what that version itself got when it went on: the same weights, moments and random numbers
    assert float(rows[1]["loss"]) == pytest.approx(0.191083, abs=2e-3)
    assert float(rows[1]["mean"]) == pytest.approx(0.920087, abs=2e-3)
    assert (tmp_path / "models/lora/zog.safetensors").exists()
