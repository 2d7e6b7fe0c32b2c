"""LoRA files of every origin mean the same, and a bad one ends in one sentence."""

from __future__ import annotations

import json
import re
import struct

import pytest
import torch

from pipeline.errors import InputError
from pipeline.lora import read_lora
from pipeline.model_files.safetensors_header import read_header

ATTENTION = r"attn[12]\.to_|self_attn\."
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def fitted_parts(adapters, path):
    """{layer: (difference)} of the file on the tiny model, all matrices multiplied out."""
    fitted = adapters.load(path)
    return {
        layer: part.scale * (part.up.flatten(1) @ part.down.flatten(1))
        for layers in fitted.layers.values()
        for layer, part in layers.items()
    }


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read_lora(path)
    text = str(caught.value)
    assert text.isprintable() and text.endswith(".") and len(text) < 500, text
    return text


@pytest.mark.parametrize("form", ["peft", "diffusers", "processors", "ldm", "peft alone"])
def test_every_spelling_is_the_same_lora(adapters, models, networks, files, ldm_names, form):
    changes = files.changes(networks)
    if form == "processors":
        changes = {k: v for k, v in changes.items() if re.search(ATTENTION, k[1])}
    if form == "peft alone":
        changes = {k: v for k, v in changes.items() if k[0] == "unet"}
    wanted = fitted_parts(adapters, files("kohya", changes, "plain"))
    assert len(wanted) == len(changes)
    if form == "ldm":
        path = files("kohya", changes, names=ldm_names)
    elif form == "peft alone":
        tensors = {}
        for (_, path), change in changes.items():
            tensors[f"base_model.model.{path}.lora_A.weight"] = change.down
            tensors[f"base_model.model.{path}.lora_B.weight"] = change.up
        path = files.raw(tensors, name="adapter_model")
        alphas = {path: c.alpha for (_, path), c in changes.items()}
        config = {"r": 4, "lora_alpha": 999, "alpha_pattern": alphas, "peft_type": "LORA"}
        path.with_name("adapter_config.json").write_text(json.dumps(config))
    else:
        path = files(form, changes)
    assert same(fitted_parts(adapters, path), wanted)
    assert not same({k: v * 1.01 for k, v in wanted.items()}, wanted)


def test_diffusers_own_conversion_of_a_kohya_file_is_the_same_lora(adapters, networks, files):
    from diffusers.loaders import lora_conversion_utils as theirs

    changes = {k: v for k, v in files.changes(networks, only="attn").items() if ".attn" in k[1]}
    tensors, _ = files.formats["kohya"](changes)
    wanted = fitted_parts(adapters, files.raw(tensors, name="plain"))
    state, alphas = theirs._convert_non_diffusers_lora_to_diffusers(dict(tensors))
    state |= {name: torch.tensor(alpha) for name, alpha in alphas.items()}
    assert same(fitted_parts(adapters, files.raw(state)), wanted)


def test_an_xl_file_in_ldm_names_lands_where_diffusers_puts_it(files, xl):
    from diffusers.loaders import lora_conversion_utils as theirs

    from pipeline.lora.adapters import Adapters
    from pipeline.model_files import ldm_keys

    adapters, unet = Adapters(xl), {"unet": xl["unet"]}
    attentions = files.changes(unet, only="attentions")
    tensors, _ = files.formats["kohya"](attentions, ldm_keys.unet_names(xl["unet"].config))
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.alpha" in tensors
    wanted = fitted_parts(adapters, files.raw(tensors, name="plain"))
    state = theirs._maybe_map_sgm_blocks_to_diffusers(dict(tensors), xl["unet"].config)
    state, alphas = theirs._convert_non_diffusers_lora_to_diffusers(state)
    state |= {name: torch.tensor(alpha) for name, alpha in alphas.items()}
    assert same(fitted_parts(adapters, files.raw(state)), wanted)


def test_rank_stabilised_and_default_alphas_of_peft(adapters, networks, files):
    changes = files.changes(networks, only="attn1.to_q")
    tensors, _ = files.formats["peft"](changes)
    for config, scale in (
        ({"unet.lora_alpha": 6}, lambda rank: 6 / rank),
        ({"unet.lora_alpha": 6, "unet.use_rslora": True}, lambda rank: 6 / rank**0.5),
        ({"lora_alpha": 6}, lambda rank: 6 / rank),
        ({"lora_alpha": 6, "unet.lora_alpha": 4}, lambda rank: 4 / rank),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_q": 2}}, lambda rank: 2 / rank),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"^to_q": 2}}, lambda rank: 6 / rank),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"n1.to_q": 2}}, lambda rank: 6 / rank),
        ({"text_encoder.lora_alpha": 6}, lambda rank: 1),
    ):
        lora = read_lora(files.raw(tensors, {"lora_adapter_metadata": json.dumps(config)}))
        for part in lora.parts.values():
            assert part.scale == pytest.approx(scale(len(part.down))), config


def test_without_alpha_it_is_the_rank(files):
    pair = {
        f"{LAYER}.lora_down.weight": torch.ones(3, 16),
        f"{LAYER}.lora_up.weight": torch.ones(16, 3),
    }
    assert read_lora(files.raw(pair)).parts[LAYER].scale == 1
    assert (
        read_lora(files.raw(pair | {f"{LAYER}.alpha": torch.tensor([6])})).parts[LAYER].scale == 2
    )


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"lora_up.weight": None}, "has no up matrix"),
        ({"lora_down.weight": None}, "has no down matrix"),
        ({"lora_up.weight": None, "lora_down.weight": None}, "has no down matrix"),
        ({"lora_up.weight": torch.ones(16, 4)}, "down [3, 16], up [16, 4]"),
        ({"lora_mid.weight": torch.ones(3, 4, 3, 3)}, "do not agree"),
        ({"lora_down.weight": torch.ones(0, 16), "lora_up.weight": torch.ones(16, 0)}, "[0, 16]"),
        ({"lora_down.weight": torch.ones(3)}, "do not agree"),
        ({"alpha": torch.ones(2)}, "alpha [2]"),
        ({"alpha": torch.tensor(float("nan"))}, "not finite"),
        ({"lora_up.weight": torch.full((16, 3), float("inf"))}, "not finite"),
        ({"lora_up.weight": torch.ones(16, 3, dtype=torch.int32)}, "has the type I32"),
        ({"alpha": torch.tensor(True)}, "has the type BOOL"),
        ({"lora_A.weight": torch.ones(3, 16)}, "twice"),
        ({"bias": torch.ones(16)}, "which no LoRA has"),
        ({"dora_scale": torch.ones(16, 1)}, "is a DoRA"),
        ({"hada_w1_a": torch.ones(16, 1)}, "do not agree"),
        ({"hada_xyz": torch.ones(16, 1)}, "which no LoRA has"),
        ({"oft_blocks": torch.ones(16, 1)}, "is an OFT"),
        ({"diff": torch.ones(16, 16)}, "full differences"),
        ({"\x1b[31m\u202e": torch.ones(1)}, "which no LoRA has"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_bad_files_are_refused(files, change, sentence):
    tensors = {
        "lora_down.weight": torch.ones(3, 16),
        "lora_up.weight": torch.ones(16, 3),
        "alpha": torch.tensor(1.0),
    } | change
    path = files.raw({f"{LAYER}.{k}": v for k, v in tensors.items() if v is not None})
    assert sentence in refused(path)


@pytest.mark.parametrize(
    "config",
    [
        *("{", "[]", "[" * 100_000, '{"unet.lora_alpha": "8"}', '{"unet.lora_alpha": null}'),
        *('{"unet.lora_alpha": NaN}', '{"lora_alpha": 1e300}', '{"unet.alpha_pattern": [1]}'),
        *('{"unet.alpha_pattern": {"a": true}}', '{"unet.use_dora": true}'),
        '{"lora_alpha": 1%s}' % ("0" * 4000),
        '{"lora_alpha": 1%s}' % ("0" * 9000),
    ],
    ids=lambda text: text[:30],
)
def test_bad_metadata_is_refused(files, config):
    pair = {
        "unet.conv_in.lora_A.weight": torch.ones(1, 4),
        "unet.conv_in.lora_B.weight": torch.ones(16, 1),
    }
    read_lora(files.raw(pair))
    refused(files.raw(pair, {"lora_adapter_metadata": config}))


def test_a_pattern_of_a_file_is_never_run_as_an_expression(files):
    """(a+)+$ on a long name would take for ever."""
    name = "unet." + "a" * 60 + "!"
    pair = {f"{name}.lora_A.weight": torch.ones(1, 4), f"{name}.lora_B.weight": torch.ones(16, 1)}
    config = {"unet.lora_alpha": 3, "unet.alpha_pattern": {"(a+)+$": 5}}
    lora = read_lora(files.raw(pair, {"lora_adapter_metadata": json.dumps(config)}))
    assert lora.parts[name].scale == 3


def test_a_checkpoint_is_no_lora(tiny_model):
    path = tiny_model / "unet" / "diffusion_pytorch_model.safetensors"
    count = len(read_header(path).tensors)
    assert f"is no LoRA: none of its {count} tensors" in refused(path)


def test_the_header_is_checked_first(files, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    assert "zip archive of pickles" in refused(path)
    path.write_bytes(struct.pack("<Q", 10) + b'{"a":')
    assert "truncated" in refused(path)


def test_far_too_many_names(tmp_path):
    """Their headers are sound; they are refused before a tensor is read."""
    header = {
        f"lora_unet_{i}.lora_up.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        for i in range(30_000)
    }
    raw = json.dumps(header).encode()
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    assert "names 30,000 tensors; a LoRA has at most 20,000." in refused(path)
