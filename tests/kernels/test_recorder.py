"""Every Triton kernel's launches are recorded, and none is launched."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
import kernels
from kernels import recorder


@pytest.mark.quick
def test_recording_launches_nothing_and_names_every_kernel():
    names = set()
    for case in recorder.cases():
        with recorder.recording() as log:
            case.run(torch.float16)
        assert log, case
        names |= {launch.kernel.__name__ for launch in log}
    assert names == {
        "forward_kernel", "delta_kernel", "dkv_kernel", "dq_kernel", "word_kernel",
        "fused_fwd_kernel", "partials_kernel", "merge_kernel", "apply_kernel",
        "bwd_partials_kernel", "bwd_merge_kernel", "dx_kernel",
    }  # fmt: skip


def test_every_triton_kernel_belongs_to_a_row():
    """Nothing is launched that compile does not know."""
    found = set()
    for path in Path(kernels.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= {x.split("(")[0][4:] for x in text.splitlines() if x.startswith("def ")} & {
            x.split("(")[0][4:] for x in text.split("@triton.jit\n")[1:]
        }
    recorded = set()
    for case in recorder.cases():
        with recorder.recording() as log:
            case.run(torch.float16)
        recorded |= {launch.kernel.__name__ for launch in log}
    assert recorded == {name for name in found if name.endswith("_kernel")}
