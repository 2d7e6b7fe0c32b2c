"""Every kernel compiles for GPUs that are not here, and the gate notices what is wrong."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton")
from kernels import compile as C
from kernels.launch import INTERPRETED


def run(*argv):
    """In a process of its own: the tests' process interprets kernels."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "kernels.compile", *argv],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux only.")
@pytest.mark.parametrize(
    "target, dtype, only, flash",
    [("sm_90", "fp16", "SD 1.5", "4096x4096"), ("sm_80", "bf16", "SD 1.5 1024", "1024x1024")],
)
def test_default_configurations_pass_the_gate(target, dtype, only, flash):
    done = run("--target", target, "--dtype", dtype, "--only", only)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    table = [x for x in done.stdout.splitlines() if x.startswith("| ") and target in x]
    seen = {x.split(" | ")[0][2:] for x in table}
    assert seen >= {"forward_kernel", "dkv_kernel", "dq_kernel", "word_kernel"}
    assert ("fused_fwd_kernel" in seen) == (only == "SD 1.5")
    unit = "HGMMA" if target == "sm_90" else "HMMA"
    flash = [x for x in table if x.startswith("| forward_kernel") and flash in x]
    assert flash and all(re.search(rf"\d+ {unit}", x) for x in flash)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux only.")
def test_amd_compiles():
    done = run("--target", "gfx942", "--dtype", "fp16", "--only", "SD 1.5 1024")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert re.search(r"forward_kernel .* gfx942 .* \d+ v_mfma", done.stdout)


def row(**changes):
    fields = {"op": "attention", "kernel": "forward_kernel", "shape": "s", "dtype": "fp16"}
    fields["mode"] = "forward"
    figures = {"target": "sm_90", "registers": 200, "spilled": 0, "shared": 1, "matrix": "8 HGMMA"}
    return C.Row(**(fields | figures | changes))


def test_the_gate_notices_what_is_wrong():
    assert row().gated and not row().faults and "| ok |" in C.line(row())
    assert row(spilled=8).faults == ["spills 8 bytes"]
    assert row(shared=1 << 20).faults == ["takes 1048576 bytes of shared memory"]
    assert row(matrix="").faults == ["has no matrix instruction"]
    norm = row(matrix="", op="group_norm", kernel="apply_kernel")
    assert not norm.faults and not row(matrix="", dtype="fp32").faults
    assert not row(matrix="", kernel="delta_kernel").faults
    assert row(error="does not compile: x").faults == ["does not compile: x"]
    for free in (
        {"target": "sm_75"},
        {"dtype": "fp32"},
        {"kernel": "dq_kernel", "mode": "backward"},
    ):
        assert not row(**free).gated
    assert "**fails**" in C.line(row(spilled=8))
    assert "**fails**" not in C.line(row(spilled=8, target="gfx942"))


@pytest.mark.skipif(not INTERPRETED, reason="Kernels are not interpreted here.")
def test_an_interpreting_process_says_so(capsys):
    assert C.main(["--target", "sm_90"]) == 2
    assert "unset it" in capsys.readouterr().err


@pytest.mark.quick
def test_the_report_counts_what_is_right_and_wrong():
    done = [row(), row(spilled=8), row(dtype="fp32", spilled=4, matrix="")]
    text = C.report(done)
    assert "3 kernels compiled, 1 of those that must be right are not, 1 others" in text
    assert "| sm_90 | fp16 | 2 | 1 | 2 | 1 | 200 |" in text
    assert "| sm_90 | fp32 | 1 | 0 | 0 | 0 | 200 |" in text
    assert text.count("| forward_kernel |") == 2 + 3
