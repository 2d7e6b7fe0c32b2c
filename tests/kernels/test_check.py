"""`kernels.check` finds wrong kernels, and goes on after one that crashes."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")
from kernels import check
from kernels.launch import INTERPRETED
from kernels.registry import KERNELS

interpreted = pytest.mark.skipif(not INTERPRETED, reason="Kernels are not interpreted here.")


@pytest.mark.quick
@interpreted
def test_a_right_kernel_is_right(capfd):
    assert check.main(["--quick", "--only", "word_attention"]) == 0
    out = capfd.readouterr().out
    assert "word_attention small" in out and "All are right." in out and " ok" in out
    assert "group_norm" not in out


@interpreted
def test_wrong_failing_and_crashing_kernels_are_rows(fake, monkeypatch, capfd):
    rows = {
        name: replace(fake, name=name, function=f"fake_kernel:{name}")
        for name in ("wrong", "crash", "fail", "copy")
    }
    monkeypatch.setattr(check, "KERNELS", rows)
    assert check.main(["--quick"]) == 1
    rows = {x.split()[0]: x for x in capfd.readouterr().out.splitlines() if x}
    assert rows["wrong"].endswith("WRONG")
    assert rows["crash"].endswith("CRASHED: its process ended.")
    assert rows["fail"].endswith("FAILED: an illegal memory access")
    assert rows["copy"].endswith(" ok")
    assert rows["Wrong:"] == "Wrong: wrong, crash, fail."


def test_a_nan_is_the_worst_error():
    assert check.worst([(1.0, 2.0), (0.5, 0.1), (0.0, 0.0)]) == (0.5, 0.1)
    assert math.isnan(check.worst([(9.0, 1.0), (math.nan, 1.0), (3.0, 1.0)])[0])
    x = torch.ones(2, dtype=torch.float64)
    assert check.allowed_error(x + 0.25, x, torch.float16) == pytest.approx(0.501)


def test_gpu_cases_cover_all_shapes_and_quick_a_few(monkeypatch):
    monkeypatch.setattr(check, "INTERPRETED", False)
    monkeypatch.setattr(check, "device_problem", lambda *_: None)
    for kernel in KERNELS.values():
        every = list(check.cases(kernel, "cuda", False))
        assert {c[0] for c in every} == set(kernel.shapes)
        assert {c[1] for c in every} == set(check.DTYPES)
        few = list(check.cases(kernel, "cuda", True))
        assert 0 < len(few) < len(every) / 6 and {c[1] for c in few} == {torch.float16}


@pytest.mark.quick
@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--only", "atention"], "There is no kernel 'atention'; there is attention,"),
        (["--device", "cuda:9"], "The kernels can't be checked on cuda:9"),
        (["--device", "tpu"], "The kernels can't be checked on tpu"),
        (["--device", "meta"], "need a CUDA or ROCm device, not meta"),
    ],
)
def test_bad_arguments_are_one_sentence(capsys, argv, sentence):
    assert check.main(argv) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="There is a GPU.")
def test_without_a_gpu_it_says_what_it_needs():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "kernels.check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and not done.stdout
    assert "set TRITON_INTERPRET=1" in done.stderr and done.stderr.count("\n") == 1
