"""The layers of a UNet that a LoRA trains."""

import copy
from dataclasses import replace

import pytest
import torch

from pipeline.training.lora.layers import LAYERS, LoraLayers


@pytest.mark.quick
@pytest.mark.parametrize("layers", LAYERS)
def test_layers_get_what_their_names_say_and_nothing_changes_at_first(tiny, layers, answer):
    before = answer(tiny)
    unet = copy.deepcopy(tiny.unet)
    learned = LoraLayers(unet, layers, 2, 2.0, seed=0)
    kinds = {"attn" in p: True for p in learned.paths}
    assert (False in kinds) == (layers != "attention")
    assert any("conv" in p for p in learned.paths) == (layers == "all")
    assert torch.equal(answer(replace(tiny, unet=unet)), before)
    assert all(len(p.down) == 2 for p in learned.pairs)
