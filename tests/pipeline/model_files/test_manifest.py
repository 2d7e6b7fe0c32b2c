"""Each architecture in both layouts: the same tensors, and the same pictures as diffusers'."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.latents import noise
from pipeline.loading import networks
from pipeline.loading.load import load
from pipeline.loading.networks import build_empty
from pipeline.model_files import identify, ldm_keys, manifest
from pipeline.model_files.tensor_plan import current_name

FAMILIES = ("sd1", "sd2", "xl")
STEPS, SIZE = 3, 64


@pytest.fixture(scope="module")
def loaded(pairs):
    """loaded(family, "folder" or "file"): the model, loaded once."""
    made = {}

    def models(family, layout):
        if (family, layout) not in made:
            path = getattr(pairs(family), layout)
            made[family, layout] = load(path, device="cpu", dtype="fp32")
        return made[family, layout]

    return models


def networks_of(models):
    towers = {f"text_encoder{i}": t.model for i, t in enumerate(models.text.encoders)}
    return {"unet": models.unet, "vae": models.vae, **towers}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_both_layouts_give_the_same_model(loaded, pairs, family):
    folder, file = loaded(family, "folder"), loaded(family, "file")
    assert folder.family == file.family == family
    for name, part in networks_of(folder).items():
        ours, theirs = networks_of(file)[name].state_dict(), part.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours), name
    for a, b in zip(folder.text.encoders, file.text.encoders, strict=True):
        assert (
            a.tokenizer("an astronaut, 宇航员").input_ids
            == b.tokenizer("an astronaut, 宇航员").input_ids
        )
        assert a.tokenizer.pad_token_id == b.tokenizer.pad_token_id
    for key in ("prediction_type", "beta_start", "steps_offset"):
        assert folder.scheduler_config[key] == file.scheduler_config[key]
    stored = load_file(pairs(family).folder / "unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[k].float(), v) for k, v in file.unet.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("negative", ["", "a blue apple"])
@pytest.mark.parametrize("family", FAMILIES)
def test_latents_equal_diffusers(loaded, pairs, family, negative):
    """The same folder in diffusers' own pipeline, and the single file, draw the same."""
    import diffusers

    cls = "StableDiffusionXLPipeline" if family == "xl" else "StableDiffusionPipeline"
    pipe = getattr(diffusers, cls).from_pretrained(
        pairs(family).folder, dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    fields = {"prompt": "a photo of a red apple", "negative": negative, "cfg": 5.0, "seed": 11}
    fields |= {"sampler": "ddim", "schedule": "uniform", "steps": STEPS, "size": (SIZE, SIZE)}
    first = noise.first_noise(noise.generator_for(11), 4, SIZE // 8, SIZE // 8)
    theirs = pipe(
        fields["prompt"],
        negative_prompt=negative or None,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        height=SIZE,
        width=SIZE,
        latents=first,
        output_type="latent",
    ).images
    for layout in ("folder", "file"):
        result = loaded(family, layout).generate(**fields)
        assert (result.latents[0] - theirs).abs().max() < 1e-4
        assert result.images[0].size == (SIZE, SIZE) and not result.warnings
    assert theirs.std() > 0.1


def test_sd2_that_does_not_say_what_it_predicts_is_asked(pairs, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file(load_file(pairs("sd2").file), path)
    assert manifest.open(path).prediction is None
    models = load(path, device="cpu")
    assert models.scheduler_config["prediction_type"] == "epsilon"
    tensors = load_file(path)
    tensors["model.diffusion_model.out.2.bias"] -= 5  # far below its input
    save_file(tensors, path)
    models = load(path, device="cpu")
    assert models.scheduler_config["prediction_type"] == "v_prediction"
    assert models.generate(steps=1, seed=1, size=(64, 64)).images


def test_marks_of_velocity_and_zero_snr(pairs, tmp_path):
    tensors = load_file(pairs("xl").file)
    save_file(
        tensors | {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}, tmp_path / "v.safetensors"
    )
    source = manifest.open(tmp_path / "v.safetensors")
    assert source.prediction == "v_prediction"
    assert source.scheduler["rescale_betas_zero_snr"] is True
    models = load(tmp_path / "v.safetensors", device="cpu")
    result = models.generate(
        prompt="a cat", steps=2, seed=1, size=(64, 64), schedule="sgm_uniform", cfg_rescale=0.7
    )
    assert "CFG rescale: 0.7" in result.parameters[0]


# Without the weights: every name and shape at full size, on the meta device

PUBLISHED = {  # configuration files as published, and the parameters that they come to
    "sd1": {
        "unet": (859_520_964, {}),
        "vae": (83_653_863, {}),
        "text_encoder": (123_060_480, {"hidden_act": "quick_gelu"}),
    },
    "sd2": {
        "unet": (
            865_910_724,
            {
                "attention_head_dim": (5, 10, 20, 20),
                "cross_attention_dim": 1024,
                "use_linear_projection": True,
            },
        ),
        "vae": (83_653_863, {}),
        "text_encoder": (
            340_387_840,
            {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
                "hidden_act": "gelu",
            },
        ),
    },
    "xl": {
        "unet": (
            2_567_463_684,
            {
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
                "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
        "vae": (83_653_863, {}),
        "text_encoder": (123_060_480, {"hidden_act": "quick_gelu"}),
        "text_encoder_2": (
            694_659_840,
            {
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_attention_heads": 20,
                "hidden_act": "gelu",
                "projection_dim": 1280,
            },
        ),
    },
}


def published(name: str, more: dict):
    """The full-size module on the meta device."""
    import diffusers
    import transformers

    with torch.device("meta"):
        if name == "unet":
            base = {"cross_attention_dim": 768, "sample_size": 64}
            return diffusers.UNet2DConditionModel(**(base | more))
        if name == "vae":
            return diffusers.AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            )
        base = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12)
        base |= dict(num_attention_heads=12, vocab_size=49408)
        cls = "CLIPTextModel" + ("WithProjection" if name == "text_encoder_2" else "")
        return getattr(transformers, cls)(transformers.CLIPTextConfig(**(base | more)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_and_shape_at_full_size(ldm_writer, family):
    parts = {n: published(n, more) for n, (_, more) in PUBLISHED[family].items()}
    for name, (count, _) in PUBLISHED[family].items():
        assert sum(p.numel() for p in parts[name].parameters()) == count, name
    file = ldm_writer(family, parts)
    shapes = {k: tuple(v.shape) for k, v in file.items()}
    found = identify.identify(shapes)
    assert (found.kind, found.family) == ("checkpoint", family)
    assert found.configs.keys() == {*parts, "scheduler"}
    for name, part in parts.items():
        ours = build_empty(name, found.configs[name])
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in part.state_dict().items()
        }
        heads = "num_attention_heads" if "text" in name else "attention_head_dim"
        if name != "vae":
            value = ours.config.to_dict()[heads] if "text" in name else ours.config[heads]
            wanted = part.config.to_dict()[heads] if "text" in name else part.config[heads]
            assert (value if isinstance(value, int) else tuple(value)) == wanted
        keys = [current_name(name, k) for k in part.state_dict()]
        places = ldm_keys.plan(name, ldm_keys.PREFIXES[name][family], found.configs[name], keys)
        for key, tensor in part.state_dict().items():
            stored = places[current_name(name, key)]
            assert stored.shape(tuple(tensor.shape)) == shapes[stored.name]


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_those_of_diffusers_own_converter(ldm_writer, family):
    from diffusers.loaders import single_file_utils

    parts = {
        n: published(n, PUBLISHED[family][n][1])
        for n in ("unet", "vae", *(n for n in PUBLISHED[family] if n.startswith("text")))
    }
    file = ldm_writer(family, parts)
    for name in ("unet", "vae"):
        convert = getattr(single_file_utils, f"convert_ldm_{name}_checkpoint")
        theirs = convert(dict(file), dict(parts[name].config))
        assert theirs.keys() == parts[name].state_dict().keys()
        places = ldm_keys.plan(
            name,
            ldm_keys.PREFIXES[name][family],
            identify.identify({k: tuple(v.shape) for k, v in file.items()}).configs[name],
            theirs,
        )
        for key, tensor in theirs.items():
            assert places[key].take(file[places[key].name]).shape == tensor.shape


# What is wrong, and what it is instead


def save(tmp_path: Path, tensors: dict, name: str = "model.safetensors") -> Path:
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / name)
    return tmp_path / name


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path, device="cpu")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    return str(caught.value)


def without(*starts):
    return lambda t: {k: v for k, v in t.items() if not k.startswith(starts)}


U, T = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
DAMAGED = [
    (without(U + "out.2.weight"), f"is incomplete: {U}out.2.weight is missing"),
    (without(U + "input_blocks.1."), f"{U}input_blocks.1 is missing"),
    (without(U + "output_blocks.2.0.in_layers"), "more are missing"),
    (without("cond_stage_model."), "token_embedding.weight is missing"),
    (without(T + "encoder.layers.1."), f"{T}encoder.layers.1 is missing"),
    (without(T + "final_layer_norm.bias"), f"{T}final_layer_norm.bias is missing"),
    (without("first_stage_model.encoder.mid"), "more are missing"),
    (lambda t: t | {U + "time_embed.0.bias": torch.zeros(3)}, "has the shape (3,), the others ask"),
    (lambda t: t | {U + "out.2.bias": torch.zeros(4, dtype=torch.int8)}, "no quantized ones"),
    (
        lambda t: t | {U + "input_blocks.0.0.weight": torch.zeros(32, 8, 3, 3)},
        "an image-editing model",
    ),
    (lambda t: t | {U + "out.2.bias": torch.full((4,), torch.nan)}, "is not finite"),
    (without("first_stage_model."), "holds no autoencoder; put one for SD 1.x"),
]


@pytest.mark.parametrize("damage, words", DAMAGED, ids=[d[1][:40] for d in DAMAGED])
def test_damaged_file_gets_a_sentence(pairs, tmp_path, monkeypatch, damage, words):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(save(tmp_path, damage(load_file(pairs("sd1").file))))


OTHERS = [
    ({"double_blocks.0.img_attn.qkv.weight": (4, 4)}, "is a Flux model"),
    ({"model.diffusion_model.joint_blocks.0.x.weight": (4,)}, "is a Stable Diffusion 3 model"),
    ({"control_model.input_hint_block.0.weight": (4, 4)}, "is a ControlNet"),
    ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)}, "is a LoRA; put it"),
    ({"emb_params": (2, 768)}, "is a textual inversion; put it"),
    ({"encoder.conv_in.weight": (4,), "decoder.conv_in.weight": (4,)}, "is an autoencoder; give"),
    ({"anything": (2, 3)}, "is nothing of Stable Diffusion"),
]


@pytest.mark.parametrize("shapes, words", OTHERS, ids=[o[1] for o in OTHERS])
def test_another_file_is_told_what_it_is(tmp_path, shapes, words):
    text = refusal(save(tmp_path, {k: torch.zeros(s) for k, s in shapes.items()}))
    assert words in text


def test_all_is_checked_before_the_first_weight_is_read(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "_read_tensors", lambda *_: pytest.fail("a weight was read"))
    tensors = load_file(pairs("sd1").file)
    assert "is missing" in refusal(save(tmp_path, without(T + "final_layer_norm.bias")(tensors)))
    folder = Path(shutil.copytree(pairs("xl").folder, tmp_path / "xl"))
    (folder / "generation.json").write_text('{"steps": 0}')
    assert "whole number from 1" in refusal(folder)


def test_other_noise_and_endless_depth_are_refused(pairs, tmp_path):
    tensors = load_file(pairs("xl").file)
    marked = save(tmp_path, tensors | {"edm_mean": torch.zeros(4), "edm_std": torch.zeros(4)})
    assert "is an EDM checkpoint" in refusal(marked)
    block = U + "input_blocks.3.1.transformer_blocks."
    assert any(k.startswith(block) for k in tensors)
    deep = {f"{block}{i}.x": torch.zeros(1) for i in range(900)}
    assert "900 transformer blocks" in refusal(save(tmp_path, tensors | deep))


def test_model_hash_is_that_of_the_file(loaded, pairs):
    import hashlib

    digest = hashlib.sha256(pairs("sd1").file.read_bytes()).hexdigest()
    assert loaded("sd1", "file").hash == digest[:10]
    text = loaded("sd1", "file").generate(steps=1, seed=1, size=(64, 64)).parameters[0]
    assert f"Model hash: {digest[:10]}, Model: sd1," in text


def test_the_file_may_be_replaced_while_the_model_serves(pairs, tmp_path):
    path = Path(shutil.copy(pairs("sd1").file, tmp_path / "m.safetensors"))
    models = load(path, device="cpu", dtype="fp32")
    before = models.generate(steps=1, seed=1, size=(64, 64)).latents[0]
    with open(path, "r+b") as file:
        file.truncate(1000)
    assert torch.equal(models.generate(steps=1, seed=1, size=(64, 64)).latents[0], before)
    assert "truncated" in refusal(path)


@pytest.mark.slow
def test_command_line_draws_with_each(pairs, tmp_path, capsys):
    from pipeline.__main__ import main

    for family in FAMILIES:
        for layout in ("folder", "file"):
            out = tmp_path / f"{family}-{layout}.png"
            model = str(getattr(pairs(family), layout))
            flags = ["--steps", "1", "--size", "64x64", "--seed", "1", "-o", str(out)]
            code = main(["generate", "a (red:1.2) apple", "--model", model, *flags])
            assert code == 0 and out.is_file(), capsys.readouterr().err
    assert main(["generate", "x", "--model", str(tmp_path / "no.safetensors")]) == 2
    assert "There is no file" in capsys.readouterr().err


def test_folder_whose_parts_do_not_fit_is_refused(pairs, tmp_path):
    folder = Path(shutil.copytree(pairs("xl").folder, tmp_path / "xl"))
    path = folder / "unet/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"projection_class_embeddings_input_dim": 99}))
    assert "takes 99 numbers beside time and words" in refusal(folder)
    path.write_text(json.dumps(config | {"cross_attention_dim": 64}))
    assert "takes a context of size 64" in refusal(folder)
    shutil.rmtree(folder / "text_encoder_2")
    path.write_text(json.dumps(config))
    assert "text_encoder_2/config.json is missing" in refusal(folder)


def test_a_missing_file_of_the_second_tokenizer_is_named_with_its_folder(pairs, tmp_path):
    folder = Path(shutil.copytree(pairs("xl").folder, tmp_path / "xl"))
    (folder / "tokenizer_2/tokenizer.json").unlink()
    assert "incomplete: tokenizer_2/vocab.json is missing." in refusal(folder)
    (folder / "tokenizer_2/vocab.json").write_text("{}")
    assert "incomplete: tokenizer_2/merges.txt is missing." in refusal(folder)
