"""`kernels.check` finds wrong kernels, and goes on after one that crashes."""

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")
from kernels import check, launch, word_attention
from kernels.attention import tiling
from kernels.launch import INTERPRETED
from kernels.registry import KERNELS

interpreted = pytest.mark.skipif(not INTERPRETED, reason="Kernels are not interpreted here.")


@pytest.mark.quick
@interpreted
def test_a_right_kernel_is_right(capfd):
    assert check.main(["--quick", "--only", "word_attention"]) == 0
    out = capfd.readouterr().out
    assert "word_attention/d64/float16" in out and "All are right." in out and " ok" in out
    assert "group_norm" not in out


PLANTED = {
    "wrong": "WRONG",
    "forget": "WRONG",  # leaves NaN in fresh memory
    "crash": "CRASHED: its process ended",
    "hang": "HUNG: no answer in 20 s",
    "fail": "FAILED: an illegal memory access",
    "unequal": "UNEQUAL",
    "copy": "ok",
}


@interpreted
def test_planted_faults_are_rows_and_the_rest_goes_on(fake, monkeypatch, capfd):
    names = {name: replace(fake, name=name, function=f"fake_kernel:{name}") for name in PLANTED}
    groups = [[next(check.cases(kernel, "cpu", True))] for kernel in names.values()]
    # one process after another: the rest of the group survives each that dies
    group = [replace(case, place=case.kernel.name) for (case,) in groups]
    results = list(check.check_group(group, "cpu", 7, 20.0))
    assert {r.place: r.note for r in results} == PLANTED
    assert [r.place for r in results if r.right] == ["copy"]
    assert all(r.shape == group[0].shape.full_title for r in results)


@interpreted
def test_a_fault_is_shown_and_the_command_fails(fake, monkeypatch, capfd):
    rows = {"good": replace(fake, name="good"), "bad": replace(fake, function="fake_kernel:wrong")}
    monkeypatch.setattr(check, "KERNELS", rows)
    assert check.main(["--quick"]) == 1
    out = capfd.readouterr().out
    assert out.count("fake/float16") == 3 and "Wrong: fake/float16." in out
    monkeypatch.setattr(check, "KERNELS", {"good": rows["good"]})
    assert check.main(["--quick", "--dtype", "float32"]) == 0
    assert "1 cases in" in (out := capfd.readouterr().out) and "All are right." in out


def test_a_nan_is_the_worst_error():
    assert check.worst([(1.0, 2.0), (0.5, 0.1), (0.0, 0.0)]) == (0.5, 0.1)
    assert math.isnan(check.worst([(9.0, 1.0), (math.nan, 1.0), (3.0, 1.0)])[0])
    x = torch.ones(2, dtype=torch.float64)
    assert check.allowed_error(x + 0.25, x, torch.float16) == pytest.approx(0.501)


@pytest.fixture
def card(monkeypatch):
    """An H200, as far as choosing configurations goes."""
    monkeypatch.setattr(check, "INTERPRETED", False)
    monkeypatch.setattr(check, "device_problem", lambda *_: None)
    monkeypatch.setattr(launch, "capability", lambda _: (9, 0))
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    monkeypatch.setattr(launch, "gpu_name", lambda _: "NVIDIA H200")
    return "cuda:0"


@pytest.mark.quick
def test_gpu_cases_cover_all_shapes_and_quick_what_drawing_needs(card):
    for kernel in KERNELS.values():
        every = list(check.cases(kernel, card, False))
        assert {c.shape for c in every} == set(kernel.shapes)
        assert {c.dtype for c in every} == set(check.DTYPES)
        assert {c.mode for c in every} == set(kernel.modes)
        few = list(check.cases(kernel, card, True))
        assert 0 < len(few) < len(every) / 6
        assert {c.dtype for c in few} == {torch.float16} and {c.mode for c in few} == {"forward"}
        once = [(c.place, *c.config.items()) for c in few]
        assert len(once) == len(set(once))


@pytest.mark.quick
@pytest.mark.parametrize("dtype", check.DTYPES)
def test_every_configuration_that_can_be_chosen_is_checked(card, dtype):
    """Whatever lengths, heads and batches a picture brings: none is left to be tried there."""
    covered = {
        (c.place, frozenset(c.config.items()))
        for kernel in KERNELS.values()
        for c in check.cases(kernel, card, False, [dtype])
    }
    lengths = (1, 16, 40, 64, 77, 154, 256, 1000, 4096, 9216)
    for d in (32, 40, 64, 80, 160):
        for tq, tk, heads in itertools.product(lengths, lengths, (1, 5, 16, 40, 160)):
            for kind in ("forward", "dkv", "dq"):
                config = tiling.heuristic(kind, d, tq, tk, dtype, heads, 132)
                assert (tiling.place(kind, d, dtype), frozenset(config.items())) in covered
            words = word_attention.heuristic(heads, d, tq, 77, dtype, 132)
            assert (word_attention.place(d, dtype), frozenset(words.items())) in covered


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
