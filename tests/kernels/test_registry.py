"""The registry has every kernel, with its parts, and a new row is found everywhere."""

import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
from kernels import recorder
from kernels.bench import __main__ as bench
from kernels.registry import KERNELS, load

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent


@pytest.mark.parametrize("name", KERNELS)
def test_a_row_names_what_exists(name):
    kernel = KERNELS[name]
    function, reference = load(kernel.function), load(kernel.reference)
    assert list(inspect.signature(function).parameters) == list(
        inspect.signature(reference).parameters
    )
    for hook in (kernel.make_inputs, kernel.launch_on_meta, kernel.tuning_jobs):
        assert callable(load(hook))
    assert callable(importlib.import_module(kernel.bench).rows)
    assert kernel.modes and set(kernel.modes) <= {"forward", "backward"}
    assert (ROOT / f"test_{name}.py").exists()


@pytest.mark.parametrize("name", KERNELS)
def test_inputs_have_the_shape_and_fit_the_function(name):
    kernel = KERNELS[name]
    for shape in kernel.shapes:
        for inputs in load(kernel.make_inputs)(shape, torch.float16, "meta"):
            inspect.signature(load(kernel.function)).bind(**inputs)
            first = next(iter(inputs.values()))
            assert first.shape[0] == shape.batch and first.dtype == torch.float16


def test_one_file_and_one_row_add_a_kernel(fake, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(KERNELS, "fake", fake)
    (case,) = [case for case in recorder.cases() if case.op == "fake"]
    with recorder.recording() as log:
        case.run(torch.float16)
    assert [launch.kernel.__name__ for launch in log] == ["copy_kernel"]
    assert "fake" in bench.parser().format_help()
    file = tmp_path / "rows.json"
    argv = ["fake", "--device", "cpu", "--seconds", "0.01", "--json", str(file)]
    assert bench.main(argv) == 0
    (row,) = json.loads(file.read_text())
    assert row["kernel"] == "fake" and row["p50"] > 0
    assert "fake 32x32 d8" in case.title and "peer" in capsys.readouterr().out
