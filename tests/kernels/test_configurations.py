"""Every configuration that can be chosen is right, interpreted: blocks of all sizes, ends cut."""

import pytest
import torch

pytest.importorskip("triton")
from kernels import check, word_attention
from kernels.attention import tiling
from kernels.launch import INTERPRETED
from kernels.registry import KERNELS, load
from kernels.shapes import ATTENTION, AttentionShape

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="`kernels.check` does this on a GPU.")
HEAD_SIZES = sorted({s.head_size for s in ATTENTION if s.model != "odd"})
CASES = [(d, dtype) for d in HEAD_SIZES for dtype in (torch.float16, torch.float32)]


def blocks(config):
    """What the interpreter makes of a configuration: it knows neither warps nor stages."""
    return tuple(v for k, v in config.items() if k not in ("num_warps", "num_stages"))


@pytest.mark.parametrize("d, dtype", CASES)
def test_every_configuration_is_right(d, dtype):
    checker, tried = check.Checker("cpu", seed=d), set()
    for name, keys in (("attention", 77), ("word_attention", 77)):
        kernel = KERNELS[name]
        shape = AttentionShape("odd", 0, 1, 70, keys, 1, d)  # neither length fills its blocks
        find = load(kernel.check_configurations)
        for mode in kernel.modes:
            for place, config, forced in find(shape, dtype, mode, torch.device("cpu"), True):
                if (place, blocks(config)) in tried:
                    continue
                tried.add((place, blocks(config)))
                case = check.Case(kernel, shape, dtype, mode, place, config, forced)
                result = checker.check(case)
                assert result.right, result
    places = {place for place, _ in tried}
    assert len(places) == 4 and len(tried) >= 6
    for kind in ("forward", "dkv", "dq"):
        listed = {blocks(c) for c in tiling.choosable(kind, d, dtype, 132)}
        assert {b for p, b in tried if p == tiling.place(kind, d, dtype)} == listed
    listed = {blocks(c) for c in word_attention.choosable(d, dtype, 132, 9)}
    assert {b for p, b in tried if p == word_attention.place(d, dtype)} == listed


@pytest.mark.quick
def test_a_wrong_block_size_is_noticed(monkeypatch):
    """The proof above fails where the configuration decides about the answer."""
    kernel = KERNELS["attention"]
    shape = AttentionShape("odd", 0, 1, 70, 77, 1, 40)
    place = tiling.place("forward", 40, torch.float16)
    checker = check.Checker("cpu", seed=1)
    from kernels.attention import forward

    own = forward.configuration
    monkeypatch.setattr(forward, "configuration", lambda *a: own(*a) | {"EVEN": True})
    config = tiling.conservative()
    case = check.Case(kernel, shape, torch.float16, "forward", place, config, {place: config})
    assert not checker.check(case).right
