"""The list of shapes is Stable Diffusion's, and each shape is used."""

import subprocess
import sys

import pytest
import torch

from kernels.registry import KERNELS
from kernels.shapes import ATTENTION, GROUP_NORM, UNET

pytestmark = pytest.mark.quick


def test_every_shape_is_there_once_and_used():
    for kernel in KERNELS.values():
        assert len(set(kernel.shapes)) == len(kernel.shapes) and kernel.small_shapes
        for shape in kernel.shapes:
            assert shape.measured or shape.compiled or shape.model == "odd"
        assert any(shape.quick for shape in kernel.shapes)


def test_the_unets_norms_are_stable_diffusions():
    """The list of 61 norms is what diffusers' UNet of SD 1.5 runs at 512x512."""
    from collections import Counter

    from diffusers import UNet2DConditionModel
    from diffusers.models.resnet import ResnetBlock2D

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    kind = {unet.conv_norm_out: (False, True)}
    for block in unet.modules():
        if isinstance(block, ResnetBlock2D):
            kind |= {block.norm1: (False, True), block.norm2: (True, True)}
    seen = Counter()
    for norm in unet.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.register_forward_hook(
                lambda m, x, _: seen.update([(*x[0].shape[1:3], *kind.get(m, (False, False)))])
            )
    shapes = (2, 4, 64, 64), (1,), (2, 77, 768)
    with torch.no_grad():
        unet(*(torch.empty(s, device="meta") for s in shapes))
    assert seen == {tuple(norm[:4]): norm.times for norm in UNET}
    assert seen.total() == 61


def test_the_unets_attention_is_stable_diffusions():
    """The attention of SD 1.5 at 512x512 is what diffusers' UNet runs."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    seen = set()

    def note(module, args, kwargs):
        x, context = args[0], kwargs.get("encoder_hidden_states")
        keys = x if context is None else context
        head_size = module.inner_dim // module.heads
        seen.add((x.shape[0], x.shape[1], keys.shape[1], module.heads, head_size))

    for module in unet.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        unet(*(torch.empty(s, device="meta") for s in ((2, 4, 64, 64), (1,), (2, 77, 768))))
    listed = {tuple(s[2:7]) for s in ATTENTION if s.model == "SD 1.5" and s.size == 512}
    assert seen == {s for s in listed if s[0] == 2}


def test_single_norms_of_sd15_are_in_its_unet():
    sizes = {(norm.channels, norm.side) for norm in UNET}
    for shape in GROUP_NORM:
        if shape.model == "SD 1.5" and shape.size == 512:
            assert {(norm.channels, norm.side) for norm in shape.norms} <= sizes


def test_shapes_and_registry_need_neither_triton_nor_torch():
    code = "import sys, kernels.registry; print({'torch', 'triton'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
