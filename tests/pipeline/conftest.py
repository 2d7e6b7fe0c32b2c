"""Models and pictures for the tests of the pipeline.

Models are tiny checkpoints of every family ("sd1", "sd2", "xl"), as diffusers' folder and as a
single file with the tensor names of the original repositories (LDM). The conversion here shares no
code with pipeline/model_files/ldm_keys.py, which it tests.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import GenerateOptions, load, tasks
from pipeline.metadata import receipt
from pipeline.metadata.save import save_picture

CLIP = Path(__file__).parents[2] / "pipeline" / "clip"
PREFIX = {  # family: {component: prefix of its tensors in a single file}
    "sd1": {"text_encoder": "cond_stage_model.transformer."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "xl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
INDEX = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
INDEX_XL = {
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}


@dataclass(frozen=True)
class Pair:
    """One tiny model in both formats: a folder of diffusers and a single .safetensors file."""

    family: str
    folder: Path
    file: Path


def unet_to_ldm(state: dict, levels: int, layers: int) -> dict:
    """Rename a UNet's tensors from diffusers' names to LDM's.

    LDM numbers the blocks consecutively. Input block 0 is conv_in; each of the `levels` has
    `layers` blocks and, except the last, a downsampler. On the way up a level has one block more
    and an upsampler at its end.
    """
    resnet = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    whole = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }

    def name(key: str) -> str:
        path, leaf = key.rsplit(".", 1)
        if path in whole:
            return f"{whole[path]}.{leaf}"
        if m := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path):
            place = 1 if m[1] == "attentions" else 2 * int(m[2])
            return f"middle_block.{place}.{resnet.get(m[3], m[3])}.{leaf}"
        m = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+?)\.(\d)\.(.+)", path)
        side, i, what, j, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
        if what == "downsamplers":
            return f"input_blocks.{(i + 1) * (layers + 1)}.0.op.{leaf}"
        if what == "upsamplers":
            place = i * (layers + 1) + layers
            attends = any(k.startswith(f"up_blocks.{i}.attentions.") for k in state)
            return f"output_blocks.{place}.{1 + attends}.conv.{leaf}"
        block = 1 + i * (layers + 1) + j if side == "down" else i * (layers + 1) + j
        inner = f"0.{resnet[rest]}" if what == "resnets" else f"1.{rest}"
        return f"{'input' if side == 'down' else 'output'}_blocks.{block}.{inner}.{leaf}"

    return {f"model.diffusion_model.{name(k)}": v for k, v in state.items()}


def vae_to_ldm(state: dict, levels: int) -> dict:
    """Rename a VAE's tensors from diffusers' names to LDM's; matrices become 1x1 kernels."""
    out = {}
    for key, value in state.items():
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        for i in range(levels):
            new = new.replace(f"up_blocks.{i}.resnets.", f"up.{levels - 1 - i}.block.")
            new = new.replace(f"up_blocks.{i}.upsamplers.0", f"up.{levels - 1 - i}.upsample")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1")
            for ours, theirs in (("group_norm", "norm"), ("to_out.0", "proj_out")):
                new = new.replace(ours, theirs)
            new = re.sub(r"to_([qkv])\.", r"\1.", new)
            if value.ndim == 2:
                value = value[:, :, None, None]
        out[f"first_stage_model.{new}"] = value
    return out


def clip_to_ldm(state: dict, prefix: str) -> dict:
    """Rename CLIP ViT-L's tensors to those in a single file, the names of transformers before 5."""
    bare = {k.removeprefix("text_model."): v for k, v in state.items()}
    return {f"{prefix}text_model.{k}": v for k, v in bare.items()}


def open_clip_to_ldm(state: dict, prefix: str, penultimate: bool) -> dict:
    """Rename a text encoder's tensors from transformers' names to OpenCLIP's.

    OpenCLIP has one matrix for q, k and v. penultimate: add a last layer of zeros, because a file
    of SD 2.x holds the last layer, which the UNet does not use and diffusers leaves out.
    """
    import torch

    out = {}
    bare = {k.removeprefix("text_model."): v for k, v in state.items()}
    layers = 1 + max(int(m[1]) for k in bare if (m := re.match(r"encoder\.layers\.(\d+)", k)))
    simple = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc"}
    simple |= {"mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    for i in range(layers):
        ours, theirs = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for leaf in ("weight", "bias"):
            for a, b in simple.items():
                out[f"{theirs}{b}.{leaf}"] = bare[f"{ours}{a}.{leaf}"]
            parts = [bare[f"{ours}self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            out[f"{theirs}attn.in_proj_{leaf}"] = torch.cat(parts)
    if penultimate:
        last = {k: v for k, v in out.items() if f"resblocks.{layers - 1}." in k}
        for key, value in last.items():
            new = key.replace(f"resblocks.{layers - 1}.", f"resblocks.{layers}.")
            out[new] = torch.zeros_like(value)
    out["token_embedding.weight"] = bare["embeddings.token_embedding.weight"]
    out["positional_embedding"] = bare["embeddings.position_embedding.weight"]
    for leaf in ("weight", "bias"):
        out[f"ln_final.{leaf}"] = bare[f"final_layer_norm.{leaf}"]
    width = bare["final_layer_norm.bias"].shape[0]
    projection = state.get("text_projection.weight")
    blank = bare["final_layer_norm.bias"].new_zeros(width, width)
    out["text_projection"] = blank if projection is None else projection.T
    out["logit_scale"] = bare["final_layer_norm.bias"].new_zeros(())
    return {prefix + k: v for k, v in out.items()}


def to_ldm(family: str, parts: dict) -> dict:
    """Return the tensors of a single file by LDM's names.

    parts: the modules of diffusers and transformers by component: "unet", "vae", "text_encoder",
    for XL "text_encoder_2".
    """
    unet, vae = parts["unet"], parts["vae"]
    out = unet_to_ldm(
        unet.state_dict(), len(unet.config.block_out_channels), unet.config.layers_per_block
    )
    out |= vae_to_ldm(vae.state_dict(), len(vae.config.block_out_channels))
    for name, prefix in PREFIX[family].items():
        state = parts[name].state_dict()
        if prefix.endswith("model."):
            out |= open_clip_to_ldm(state, prefix, family == "sd2")
        else:
            out |= clip_to_ldm(state, prefix)
    return out


def tiny_parts(family: str) -> dict:
    """Return small untrained modules by component, with random weights of a fixed seed.

    They keep the features by which a family is recognized. Weights are fp32 values that fp16 holds
    exactly.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def text(cls, layers, activation, **more):
        config = dict(vocab_size=49408, hidden_size=64, intermediate_size=96, projection_dim=64)
        config |= dict(num_hidden_layers=layers, num_attention_heads=1, hidden_act=activation)
        config |= dict(bos_token_id=49406, eos_token_id=49407) | more
        return cls(CLIPTextConfig(**config))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed({"sd1": 1, "sd2": 2, "xl": 3}[family])
        shape = dict(
            sample_size=8,
            block_out_channels=(64, 128),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=64,
            attention_head_dim=8,
        )
        if family != "sd1":
            shape |= dict(attention_head_dim=(1, 2), use_linear_projection=True)
        if family == "xl":
            shape |= dict(
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2),
                cross_attention_dim=128,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=64 + 6 * 256,
            )
        parts = {
            "unet": UNet2DConditionModel(**shape),
            "vae": AutoencoderKL(
                sample_size=64,
                block_out_channels=(32, 32, 64, 64),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                scaling_factor=0.13025 if family == "xl" else 0.18215,
            ),
        }
        if family == "sd2":
            parts["text_encoder"] = text(CLIPTextModel, 2, "gelu", pad_token_id=0)
        else:
            parts["text_encoder"] = text(CLIPTextModel, 3, "quick_gelu", pad_token_id=49407)
        if family == "xl":
            cls = CLIPTextModelWithProjection
            parts["text_encoder_2"] = text(cls, 3, "gelu", pad_token_id=0)
    return {name: part.half().float() for name, part in parts.items()}


def write_pair(family: str, root: Path) -> Pair:
    """Write the tiny model of `family` in both formats under `root`, with fp16 weights."""
    from safetensors.torch import save_file
    from transformers import CLIPTokenizer

    parts, folder = tiny_parts(family), root / family
    index = {"_class_name": "StableDiffusionPipeline", **INDEX}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    if family == "xl":
        index = {"_class_name": "StableDiffusionXLPipeline", **INDEX, **INDEX_XL}
        index |= {"force_zeros_for_empty_prompt": True}
    scheduler = {
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "prediction_type": "v_prediction" if family == "sd2" else "epsilon",
    }
    if family == "xl":
        scheduler["timestep_spacing"] = "leading"
    for name, part in parts.items():
        part.half().save_pretrained(folder / name)
    for name in ("tokenizer", "tokenizer_2") if family == "xl" else ("tokenizer",):
        tokenizer = CLIPTokenizer.from_pretrained(CLIP)
        if family == "sd2" or name == "tokenizer_2":
            tokenizer.pad_token = "!"
        tokenizer.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))
    tensors = {k: v.contiguous() for k, v in to_ldm(family, parts).items()}
    metadata = {"modelspec.prediction_type": "v"} if family == "sd2" else {}
    save_file(tensors, root / f"{family}.safetensors", metadata={"format": "pt", **metadata})
    return Pair(family, folder, root / f"{family}.safetensors")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """pairs(family) returns the tiny model of a family as a Pair, which tests must not change."""
    root, made = tmp_path_factory.mktemp("pairs"), {}

    def pair(family: str) -> Pair:
        if family not in made:
            made[family] = write_pair(family, root)
        return made[family]

    return pair


@pytest.fixture(scope="session")
def ldm_writer():
    """Return the function to_ldm."""
    return to_ldm


@pytest.fixture
def library_folder(tmp_path, monkeypatch, pairs):
    """Change to a working directory whose ./models has a file of each kind; return that folder.

    Files stand in subfolders, a hidden folder too, and some are damaged or of unknown kinds.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from pipeline.model_files import library

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "EMBEDDED", tmp_path / "embedded")
    place = tmp_path / "models"
    (place / "Stable-diffusion/mine").mkdir(parents=True)
    (place / ".hidden").mkdir()
    shutil.copy(pairs("sd1").file, place / "Stable-diffusion/mine/one.safetensors")
    shutil.copy(pairs("xl").file, place / "xl.safetensors")
    shutil.copy(pairs("xl").file, place / ".hidden/no.safetensors")
    shutil.copytree(pairs("sd2").folder, place / "two")
    down = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {
        f"{down}.lora_down.weight": torch.ones(2, 768),
        f"{down}.lora_up.weight": torch.ones(8, 2),
    }
    save_file(lora, place / "detail.safetensors")
    save_file(
        {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, place / "bad.safetensors"
    )
    vae = load_file(pairs("sd1").folder / "vae/diffusion_pytorch_model.safetensors")
    save_file(vae, place / "soft.safetensors")
    save_file({"double_blocks.0.x": torch.ones(1)}, place / "flux.safetensors")
    (place / "old.ckpt").write_bytes(b"\x80\x02")
    (place / "broken.safetensors").write_bytes(bytes(20))
    (place / "notes.txt").write_text("no model")
    return place


@pytest.fixture(scope="module")
def models(tiny_model):
    """The tiny model on the CPU in fp32."""
    return load(str(tiny_model), device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def request_options():
    """The options of `drawn`, as a dict that tests merge others into."""
    return {
        "prompt": "a red apple, 红苹果",
        "seed": 5,
        "steps": 4,
        "cfg": 3.0,
        "sampler": "euler_a",
    }


@pytest.fixture(scope="module")
def drawn(models, request_options):
    """(Result, its Steps) of text to image with `request_options`; read only."""
    *steps, result = models.stream(GenerateOptions(**request_options))
    return result, steps


@pytest.fixture(scope="session")
def draw(request_options):
    """draw(models, folder, key, **fields): run the task `key` with `request_options` and `fields`;
    return the paths of the saved PNGs."""

    def draw(models, folder, key="generate", **fields):
        *_, result = tasks.stream(models, key, tasks.options(key, **(request_options | fields)))
        return result.save(folder / f"{key}.png")

    return draw


@pytest.fixture(scope="session")
def rewritten():
    """rewritten(path, change, digest, image, text): write the PNG `path` again with another
    receipt, picture or parameters text; return its path.

    change(about) edits the receipt's dict in place. digest: whether the receipt gets a digest that
    fits its new content.
    """

    def rewritten(path, change=None, digest=True, image=None, text=None):
        with Image.open(path) as opened:
            opened.load()
        about = json.loads(opened.info["glassbox"])
        if change:
            change(about)
        picture = image or opened.convert("RGB")
        picture.info["parameters"] = text or opened.info["parameters"]
        picture.info["receipt"] = receipt.to_json(about) if digest else json.dumps(about)
        return save_picture(picture, path)

    return rewritten


@pytest.fixture
def signed_png(drawn, tmp_path):
    """The path of the picture of `drawn`, a PNG with its receipt."""
    (saved,) = drawn[0].save(tmp_path / "picture.png")
    return saved


@pytest.fixture
def input_files(tmp_path):
    """The paths of a picture and of a mask for it, both 64x64 PNGs."""
    field = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(field).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "in.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (10, 10, 40, 50))
    mask.save(tmp_path / "mask.png")
    return tmp_path / "in.png", tmp_path / "mask.png"
