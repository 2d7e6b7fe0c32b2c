"""A few kills of trainings: the short form of kills.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.soak import kills

pytestmark = pytest.mark.training


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_trainings_leave_whole_files_and_end_with_the_same_bits():
    argv = [sys.executable, kills.__file__, "--count", "6", "--steps", "4"]
    done = subprocess.run([*argv, "--stages", "vae", "lora"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "6 kills" in done.stdout and "\n0 faults" in done.stdout


class OneFolder:
    """Stands in for the trainings: all checkpoints lie in the run's folder itself."""

    def checkpoints(self, stage: str, run: Path) -> Path:
        return run


@pytest.mark.quick
def test_what_is_called_a_fault(tmp_path):
    for step in (1, 2):
        save_file({"a": torch.ones(9) * step}, tmp_path / f"checkpoint-0000000{step}.safetensors")
    faults = []
    assert kills.check(OneFolder(), "vae", tmp_path, 2, faults) == 2 and not faults
    kills.check(OneFolder(), "vae", tmp_path, 3, faults)
    assert faults == ["The newest checkpoint was of step 3 before a kill, then of 2."]
    wanted = kills.result(OneFolder(), "vae", tmp_path)
    newest = tmp_path / "checkpoint-00000002.safetensors"
    save_file({"a": torch.ones(9)}, newest)
    assert kills.result(OneFolder(), "vae", tmp_path) != wanted
    newest.write_bytes(newest.read_bytes()[:-1])
    kills.check(OneFolder(), "vae", tmp_path, 0, faults)
    assert "checkpoint-00000002.safetensors cannot be read" in faults[-1]
    (tmp_path / ".a.part").touch()
    assert kills.parts(tmp_path) == [Path(".a.part")]
