"""The gate notices what is wrong, and docs/compiled.md is of the kernels as they are."""

from pathlib import Path

import pytest

pytest.importorskip("triton")
from kernels import compile_report as R
from kernels.code_hash import code_hash
from kernels.triton_versions import oldest

pytestmark = pytest.mark.quick
DOCUMENT = Path(R.__file__).parents[1] / "docs" / "compiled.md"


def row(**changes):
    fields = {"op": "attention", "kernel": "forward_kernel", "shape": "s", "dtype": "fp16"}
    fields |= {"mode": "forward", "triton": "3.9.0"}
    figures = {"target": "sm_90", "registers": 200, "spilled": 0, "shared": 1, "matrix": "8 HGMMA"}
    return R.Row(**(fields | figures | changes))


def test_the_gate_notices_what_is_wrong():
    assert row().gated and not row().faults and "| ok |" in R.line(row())
    assert row(spilled=8).faults == ["spills 8 bytes"]
    assert row(shared=1 << 20).faults == ["takes 1048576 bytes of shared memory"]
    assert row(matrix="").faults == ["has no matrix instruction"]
    norm = row(matrix="", op="group_norm", kernel="apply_kernel")
    assert not norm.faults and not row(matrix="", dtype="fp32").faults
    assert not row(matrix="", kernel="delta_kernel").faults
    assert row(error="does not compile: x").faults == ["does not compile: x"]
    assert "**fails**" in R.line(row(spilled=8))


@pytest.mark.parametrize(
    "free",
    [
        {"target": "sm_75"},
        {"target": "gfx942"},
        {"dtype": "fp32"},
        {"kernel": "dq_kernel", "mode": "backward"},
    ],
)
def test_everything_must_compile_and_rightly_whatever_else_is_only_listed(free):
    assert not row(**free).gated
    spilled = row(**free, spilled=8)
    assert spilled.faults and not spilled.failed and "**fails**" not in R.line(spilled)
    for wrong in ({"error": "does not compile: x"}, {"unwritten": 3}):
        failed = row(**free, **wrong)
        assert failed.failed and "**fails**" in R.line(failed)
    assert "reads unwritten registers in 3 instructions" in row(unwritten=3).faults


def test_the_report_counts_what_is_right_and_wrong():
    done = [row(), row(spilled=8), row(dtype="fp32", spilled=4, matrix="")]
    text = R.report(done, "0123")
    assert "3 kernels compiled, 1 of those that must be right are not, 1 others" in text
    assert "| 3.9.0 | sm_90 | fp16 | 2 | 1 | 0 | 2 | 1 | 200 |" in text
    assert "| 3.9.0 | sm_90 | fp32 | 1 | 0 | 0 | 0 | 0 | 200 |" in text
    assert text.count("| forward_kernel |") == 2 + 3
    assert R.reported_hash(text) == "0123" and R.REPORT in text


def test_a_launch_has_one_line_for_both_tritons_and_for_types_that_agree():
    kernel = {"kernel": "dq_kernel"}
    old = kernel | {"triton": "3.6.0", "registers": 99}
    failed = {"registers": None, "spilled": None, "shared": None, "matrix": None}
    done = [
        row(**old), row(**old, dtype="bf16"), row(**(old | failed), dtype="fp32", error="no"),
        row(**kernel), row(**kernel, dtype="bf16"), row(**kernel, dtype="fp32"),
        row(**kernel, registers=50),  # the same kernel, launched again for this shape
    ]  # fmt: skip
    lines = [x for x in R.report(done, "0").split("## All")[1].splitlines() if "dq" in x]
    assert lines == [
        "| dq_kernel | s | sm_90 | fp16, bf16 | 99 | 0 | 1 | 8 HGMMA | 200 | 0 | 1 | 8 HGMMA |",
        "| dq_kernel | s | sm_90 | fp32 | does not compile |  |  |  | 200 | 0 | 1 | 8 HGMMA |",
        "| dq_kernel | s | sm_90 | fp16 |  |  |  |  | 50 | 0 | 1 | 8 HGMMA |",
    ]


def test_the_committed_tables_are_of_this_code():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert R.reported_hash(text) == code_hash(), (
        f"docs/compiled.md is older than the kernels; run: {R.REPORT}"
    )


def test_the_committed_tables_show_no_failure():
    head = DOCUMENT.read_text(encoding="utf-8").split("## Remarked on")[0]
    table = [x.strip("| ").split(" | ") for x in head.splitlines() if x.startswith("| ")][1:]
    versions = list(dict.fromkeys(cells[0] for cells in table))
    assert len(versions) == 2 and versions[0].startswith(oldest())
    groups = {tuple(cells[:3]) for cells in table}
    needed = [(target, dtype) for target in ("sm_80", "sm_90", "sm_120") for dtype in R.DTYPES]
    assert groups >= {(version, *each) for version in versions for each in needed}
    assert all(cells[5] == cells[7] == "0" for cells in table)  # do not compile, are wrong
