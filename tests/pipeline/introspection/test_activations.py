"""What the blocks of a UNet give: the shapes and maps of plain calls, and no bit changed."""

from __future__ import annotations

import pytest
import torch

from pipeline import GenerateOptions, load
from pipeline.introspection.activations import Activations, record_activations, unet_blocks

OPTIONS = GenerateOptions(prompt="a red apple", steps=2, seed=4, width=64, height=128)


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def run(models):
    *steps, (result, _) = list(record_activations(models, models.stream(OPTIONS)))
    return steps, result


def test_watching_changes_no_bit(models, run):
    result = models.generate(OPTIONS)
    assert torch.equal(result.latents[0], run[1].latents[0])
    assert result.images[0].tobytes() == run[1].images[0].tobytes()


def test_shapes_are_those_of_this_size(models, run):
    steps, _ = run
    assert len(steps) == OPTIONS.steps
    for _, seen in steps:
        names = [name for name, _, _ in unet_blocks(models.unet)]
        shapes = {block.name: block.shape for block in seen.blocks}
        assert list(shapes) == names
        assert shapes == {
            "conv_in": (16, 16, 8),
            "down_blocks.0": (16, 8, 4),
            "down_blocks.1": (32, 8, 4),
            "mid_block": (32, 8, 4),
            "up_blocks.0": (32, 16, 8),
            "up_blocks.1": (16, 16, 8),
            "conv_out": (4, 16, 8),
        }
        for block in seen.blocks:
            assert block.map.shape == block.shape[1:]
            assert (block.map >= 0).all()


def test_skips_that_are_handed_over_are_those_that_arrive(run):
    blocks = run[0][0][1].blocks
    given = [block.shape for block in blocks if block.side == "in"]
    given += [skip for block in blocks if block.side == "down" for skip in block.skips]
    taken = [skip for block in blocks[::-1] if block.side == "up" for skip in block.skips]
    assert given == taken
    assert len(given) == 4


def test_words_enter_where_there_is_cross_attention(run):
    entered = {block.name: block.attends for block in run[0][0][1].blocks if block.attends}
    assert entered == {
        "down_blocks.0": ((128, 16), (77, 16)),
        "mid_block": ((32, 32), (77, 32)),
        "up_blocks.1": ((128, 16), (77, 16)),
    }


def test_maps_and_vectors_are_those_of_the_conditional_picture(models):
    unet, seen = models.unet, Activations(models.unet)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    with torch.no_grad(), seen:
        unet(torch.randn(2, 4, 8, 8), 3, encoder_hidden_states=context)
        out = unet(x, 700, encoder_hidden_states=context).sample
    first, *_, last = seen.blocks
    with torch.no_grad():
        entered = unet.conv_in(x)[1]
        waves = unet.time_proj(torch.tensor([700]))
        time = unet.time_embedding(waves)
    slow = sum(channel.abs() for channel in entered) / len(entered)
    assert torch.allclose(first.map, slow, atol=1e-6)
    assert torch.allclose(last.map, out[1].abs().mean(0), atol=1e-6)
    assert torch.allclose(seen.time_proj, waves[0], atol=1e-6)
    assert torch.allclose(seen.time_embedding, time[0], atol=1e-5)


def test_nothing_stays_behind(models, run):
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in models.unet.modules()
    )


def test_a_stream_that_is_closed_early_is_left_clean(models):
    events = record_activations(models, models.stream(OPTIONS))
    next(events)
    events.close()
    assert not models.unet._forward_pre_hooks
    assert models.lock.acquire(blocking=False)
    models.lock.release()
