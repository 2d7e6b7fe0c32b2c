"""A LoRA does what merging it into the weights would, and leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import os

import pytest
import torch
from torch import nn

from pipeline.backends import ATTENTION, GROUP_NORM, unsupported_reason
from pipeline.errors import InputError
from pipeline.lora import read_lora
from pipeline.lora.adapters import Adapters
from pipeline.model_files import ldm_keys

CPU = torch.device("cpu")


@contextlib.contextmanager
def merged(networks, *loras):
    """The networks with (changes, weight) added to their weights: what a LoRA means."""
    with torch.no_grad():
        saved = {}
        for changes, weight in loras:
            for (network, path), change in changes.items():
                layer = networks[network].get_submodule(path)
                saved.setdefault(layer, layer.weight.clone())
                layer.weight.copy_(layer.weight.double() + weight * change.merged)
        yield
        for layer, weight in saved.items():
            layer.weight.copy_(weight)


def predict(models, attention="sdpa", group_norm="torch", maps=None):
    """The UNet's output on random latents, its words from the text encoder."""
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    ids = torch.randint(0, 500, (1, 77), generator=generator)
    session = models.backends.open_session(attention, group_norm)

    def call():
        context = models.text_encoder(input_ids=ids).last_hidden_state
        models.backends.processor.attention_hook = maps.append if maps is not None else None
        try:
            return models.unet(latents, 500, encoder_hidden_states=context, return_dict=False)[0]
        finally:
            models.backends.processor.attention_hook = None

    with torch.no_grad():
        return session.call(call)


def close(a, b, tolerance=1e-5) -> bool:
    return ((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("middles", [False, True], ids=["pairs", "with mid"])
def test_every_layer_gives_what_merged_weights_give(networks, adapters, files, middles):
    changes = files.changes(networks, middles=middles)
    adapters.install(((adapters.load(files("kohya", changes)), 0.7, -0.4),))
    strides = set()
    for (network, path), change in changes.items():
        layer = networks[network].get_submodule(path)
        weight = layer.weight.double() + (0.7 if network == "unet" else -0.4) * change.merged
        if isinstance(layer, nn.Linear):
            x = torch.randn(2, 5, layer.in_features)
            wanted = nn.functional.linear(
                x.double(), weight, layer.bias if layer.bias is None else layer.bias.double()
            )
        else:
            strides.add(layer.stride)
            x = torch.randn(2, layer.in_channels, 6, 6)
            wanted = nn.functional.conv2d(
                x.double(), weight, layer.bias.double(), layer.stride, layer.padding
            )
        with torch.no_grad():
            given, bare = layer(x), layer.forward(x)
        assert close(given, wanted), path
        assert not close(bare, wanted, 1e-2), path
    assert strides == {(1, 1), (2, 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "attention, group_norm",
    [*((name, "torch") for name in ATTENTION), *(("sdpa", n) for n in GROUP_NORM if n != "torch")],
)
def test_every_backend_with_its_word_maps(models, networks, adapters, files, attention, group_norm):
    for kind, name in (("attention", attention), ("group_norm", group_norm)):
        reason = unsupported_reason(kind, name, CPU, torch.float32)
        if reason:
            pytest.skip(reason)
    changes = files.changes(networks)
    with merged(networks, (changes, 0.8)):
        wanted_maps: list = []
        wanted = predict(models, "math", "torch", wanted_maps)
    adapters.install(((adapters.load(files("kohya", changes)), 0.8, 0.8),))
    maps: list = []
    given = predict(models, attention, group_norm, maps)
    assert close(given, wanted, 1e-4)
    assert len(maps) == len(wanted_maps) > 1
    assert all(close(a, b, 1e-4) for a, b in zip(maps, wanted_maps, strict=True))
    adapters.install(())
    bare: list = []
    assert not close(predict(models, maps=bare), wanted, 0.1)
    assert not all(close(a, b, 1e-2) for a, b in zip(bare, wanted_maps, strict=True))


def test_two_add_up_and_the_same_twice_adds_its_weights(models, networks, adapters, files):
    first, second = files.changes(networks), files.changes(networks, only="attn")
    a = adapters.load(files("kohya", first, "a"))
    b = adapters.load(files("kohya", second, "b"))
    with merged(networks, (first, 0.5), (second, -1.2)):
        wanted = predict(models)
    adapters.install(((a, 0.5, 0.5), (b, -1.2, -1.2)))
    assert close(predict(models), wanted, 1e-4)
    adapters.install(((a, 0.75, 0.25),))
    wanted = predict(models)
    adapters.install(((a, 0.5, 1.0), (a, 0.25, -0.75)))
    assert torch.equal(predict(models), wanted)


def test_nothing_and_weight_nothing_are_the_bare_model_bitwise(models, networks, adapters, files):
    states = {n: copy.deepcopy(m.state_dict()) for n, m in networks.items()}
    bare = predict(models)
    a = adapters.load(files("kohya", files.changes(networks)))
    for active in (((a, 0.0, 0.0),), ((a, 1.0, 1.0), (a, -1.0, -1.0)), ()):
        adapters.install(((a, 1.0, 1.0),))
        assert not torch.equal(predict(models), bare)
        for name, state in states.items():
            now = networks[name].state_dict()
            assert list(now) == list(state)
            assert all(torch.equal(now[key], state[key]) for key in state)
        adapters.install(active)
        assert torch.equal(predict(models), bare)
        assert not any(m._forward_hooks for n in networks.values() for m in n.modules())


def test_the_unet_and_the_text_encoder_have_weights_of_their_own(models, networks, adapters, files):
    changes = files.changes(networks)
    a = adapters.load(files("kohya", changes))
    parts = [{k: v for k, v in changes.items() if k[0] == n} for n in networks]
    for weights, kept in (((0.9, 0.0), parts[0]), ((0.0, 0.9), parts[1])):
        adapters.install(())
        with merged(networks, (kept, 0.9)):
            wanted = predict(models)
        adapters.install(((a, *weights),))
        assert close(predict(models), wanted, 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_good_as_merging_in_it(networks, files, dtype):
    """Judged by the fp64 result, layer by layer on average."""
    changes = {k: v for k, v in files.changes(networks).items() if k[0] == "unet"}
    unet = copy.deepcopy(networks["unet"]).to(dtype)
    adapters = Adapters({"unet": unet})
    adapters.install(((adapters.load(files("kohya", changes)), 1.0, 1.0),))
    ours = merging = 0.0
    for (_, path), change in changes.items():
        layer = unet.get_submodule(path)
        size = (
            (6, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 6, 6)
        )
        x = torch.randn(size).to(dtype)
        exact, rounded = copy.deepcopy(layer).double(), copy.deepcopy(layer)
        for other in (exact, rounded):
            other._forward_hooks.clear()
        with torch.no_grad():
            exact.weight += change.merged
            rounded.weight.copy_(exact.weight)
            wanted = exact(x.double())
            ours += (layer(x).double() - wanted).pow(2).mean().sqrt().item()
            merging += (rounded(x).double() - wanted).pow(2).mean().sqrt().item()
    assert 0 < ours < 2 * merging


def test_a_file_of_another_architecture_is_refused_whole(models, networks, adapters, files, xl):
    bare = predict(models)
    unet = {"unet": xl["unet"]}
    path = files("kohya", files.changes(unet), names=ldm_keys.unet_names(xl["unet"].config))
    with pytest.raises(InputError) as caught:
        adapters.load(path)
    text = str(caught.value)
    assert text.startswith(
        "detail.safetensors is a LoRA for Stable Diffusion XL (it takes a context of size 2048);"
        " this model is another one (32): "
    )
    assert torch.equal(predict(models), bare)
    assert not any(m._forward_hooks for n in networks.values() for m in n.modules())


@pytest.mark.parametrize("width, model", [(768, "1.x"), (1024, "2.x"), (2048, "XL")])
def test_a_refusal_names_both_architectures(files, networks, width, model):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(
        dict(networks["unet"].config, cross_attention_dim=width)
    )
    changes = files.changes({"unet": unet}, only="attn")
    path = files("kohya", changes)
    Adapters({"unet": unet}).load(path)
    other = {768: 1024, 1024: 2048, 2048: 768}[width]
    here = UNet2DConditionModel.from_config(dict(unet.config, cross_attention_dim=other))
    with pytest.raises(InputError) as caught:
        Adapters({"unet": here}).load(path)
    fits = sum("attn2.to_k" not in p and "attn2.to_v" not in p for _, p in changes)
    assert f"for Stable Diffusion {model} (it takes a context of size {width});" in str(
        caught.value
    )
    assert f"({other}): {fits} of its {len(changes)} parts fit, lora_unet_" in str(caught.value)


def test_a_layer_that_the_model_lacks_is_refused(adapters, networks, files):
    tensors, _ = files.formats["kohya"](files.changes(networks, only="attn1"))
    tensors["lora_unet_\x1b[2J.lora_down.weight"] = torch.ones(2, 2)
    tensors["lora_unet_\x1b[2J.lora_up.weight"] = torch.ones(2, 2)
    with pytest.raises(InputError) as caught:
        adapters.load(files.raw(tensors))
    count = len(tensors) // 3
    assert str(caught.value).endswith(
        f"{count} of its {count + 1} parts fit, lora_unet_?[2J does not."
    )
    assert str(caught.value).isprintable()


def test_a_layer_named_in_two_ways_is_refused(adapters, networks, files, ldm_names):
    """Which of the two was meant nobody can say."""
    changes = files.changes(networks, only="attn1.to_q")
    twice, _ = files.formats["kohya"](changes)
    twice |= files.formats["kohya"](changes, ldm_names)[0]
    with pytest.raises(InputError, match=f"{len(changes)} of its {2 * len(changes)} parts fit"):
        adapters.load(files.raw(twice))


@pytest.mark.parametrize(
    "down, up",
    [((2, 15), (16, 2)), ((2, 16), (17, 2)), ((2, 16, 3, 3), (16, 2, 1, 1))],
)
def test_a_matrix_of_another_size_is_refused(adapters, files, down, up):
    base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{base}.lora_down.weight": torch.ones(down),
        f"{base}.lora_up.weight": torch.ones(up),
    }
    with pytest.raises(InputError, match="0 of its 1 parts fit"):
        adapters.load(files.raw(tensors))


def test_a_kernel_of_one_may_be_written_or_not(models, networks, adapters, files):
    """SD 1.x has convolutions where 2.x has linear layers; trainers write what theirs had."""
    changes = files.changes(networks)
    adapters.install(((adapters.load(files("kohya", changes)), 1.0, 1.0),))
    wanted = predict(models)
    tensors, _ = files.formats["kohya"](changes)
    for key, tensor in tensors.items():
        if tensor.ndim == 2:
            tensors[key] = tensor[..., None, None]
        elif tensor.shape[2:] == (1, 1):
            tensors[key] = tensor[..., 0, 0]
    adapters.install(((adapters.load(files.raw(tensors)), 1.0, 1.0),))
    assert torch.equal(predict(models), wanted)


def test_values_that_the_model_cannot_hold_are_refused(networks, files):
    unet = copy.deepcopy(networks["unet"]).half()
    changes = files.changes({"unet": unet}, only="attn1.to_q")
    next(iter(changes.values())).up.fill_(1e6)
    with pytest.raises(InputError, match="float16 cannot; load the model with dtype fp32"):
        Adapters({"unet": unet}).load(files("kohya", changes))


def test_a_file_is_read_again_only_when_it_changed(adapters, networks, files):
    path = files("kohya", files.changes(networks, only="attn1"))
    first = adapters.load(path)
    assert adapters.load(str(path)) is first
    size = path.stat().st_size
    files("kohya", files.changes(networks, only="attn1"))
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    assert adapters.load(path) is not first
    with pytest.raises(InputError, match="cannot be read"):
        adapters.load(path.with_name("none.safetensors"))


def test_xl_text_encoders_by_number_and_by_name(xl, files):
    """With `text_model.` and without: transformers has it in one of the two classes only."""
    adapters = Adapters(xl)
    spelled = {}
    for network, prefix in (("text_encoder", "lora_te1_"), ("text_encoder_2", "lora_te2_")):
        for path, layer in xl[network].named_modules():
            if isinstance(layer, nn.Linear):
                plain = path.removeprefix("text_model.")
                root = "" if plain == "text_projection" else "text_model."
                spelled[f"{prefix}{(root + plain).replace('.', '_')}"] = layer
                spelled[f"{network}.{root}{plain}"] = layer
                spelled[f"{network}.{plain}"] = layer
    for name, layer in spelled.items():
        suffixes = ("lora_down", "lora_up") if name.startswith("lora_") else ("lora_A", "lora_B")
        down, up = torch.ones(1, layer.in_features), torch.ones(layer.out_features, 1)
        pair = dict(zip([f"{name}.{s}.weight" for s in suffixes], (down, up), strict=True))
        fitted = adapters.fit(read_lora(files.raw(pair)))
        assert [m for layers in fitted.layers.values() for m in layers] == [layer], name
