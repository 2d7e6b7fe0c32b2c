"""LoRA files in every format that is read, made for given networks with random matrices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.backends import Backends
from pipeline.lora.adapters import Adapters
from pipeline.model_files import ldm_keys


@dataclass
class Change:
    """The LoRA matrices of one layer, and the weight difference that they mean.

    down: (r, in, ...); up: (out, r, ...); mid: (r, r, kh, kw) of a convolution in three, or None.
    """

    down: Tensor
    up: Tensor
    mid: Tensor | None
    alpha: float

    @property
    def merged(self) -> Tensor:
        """The weight difference alpha / rank * up @ mid @ down in fp64, of the weight's shape."""
        down, up = self.down.double(), self.up.double().flatten(1)
        if self.mid is not None:
            out = torch.einsum("or,rskl,si->oikl", up, self.mid.double(), down.flatten(1))
        else:
            out = torch.tensordot(up, down, dims=1)
        return out * self.alpha / len(self.down)


Changes = dict[tuple[str, str], Change]  # by (network, module path)


def changes(networks: dict[str, nn.Module], *, middles: bool = False, only: str = "") -> Changes:
    """Return random LoRA matrices of ranks 1 to 4 for every linear and convolution layer.

    middles: whether 3x3 convolutions are decomposed into three (LyCORIS's LoCon with `mid`). only:
    a text that a layer's path must contain.
    """
    out = {}
    for network, module in networks.items():
        for path, layer in module.named_modules():
            if not isinstance(layer, (nn.Linear, nn.Conv2d)) or only not in path:
                continue
            rank, mid = len(out) % 4 + 1, None
            rows, columns, *kernel = layer.weight.shape
            if middles and kernel and kernel[0] > 1:
                mid, kernel = torch.randn(rank, rank, *kernel) / 3, [1, 1]
            down = torch.randn(rank, columns, *kernel) / (columns * 9) ** 0.5
            up = torch.randn(rows, rank, *[1 for _ in kernel])
            out[network, path] = Change(down, up, mid, alpha=rank / 2 + len(out) % 3)
    return out


def _scaled(change: Change) -> Tensor:
    return change.up * (change.alpha / len(change.down))


def kohya(changes: Changes, names=None) -> tuple[dict, dict]:
    """Return (tensors, metadata) as kohya's sd-scripts writes them.

    names: other module paths for the UNet, by diffusers' paths.
    """
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    tensors = {}
    for (network, path), change in changes.items():
        path = names[path] if names and network == "unet" else path
        base = prefixes[network] + path.replace(".", "_")
        tensors[f"{base}.lora_down.weight"] = change.down
        tensors[f"{base}.lora_up.weight"] = change.up
        tensors[f"{base}.alpha"] = torch.tensor(change.alpha)
        if change.mid is not None:
            tensors[f"{base}.lora_mid.weight"] = change.mid
    return tensors, {"ss_network_module": "networks.lora"}


def peft(changes: Changes) -> tuple[dict, dict]:
    """Return (tensors, metadata) as diffusers writes them with peft: alphas are in the metadata."""
    tensors, config = {}, {}
    for (network, path), change in changes.items():
        root = "text_model." if network == "text_encoder" else ""
        tensors[f"{network}.{root}{path}.lora_A.weight"] = change.down
        tensors[f"{network}.{root}{path}.lora_B.weight"] = change.up
        config[f"{network}.lora_alpha"] = 999
        config.setdefault(f"{network}.alpha_pattern", {})[f"^{root}{path}"] = change.alpha
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config)}


def diffusers(changes: Changes) -> tuple[dict, dict]:
    """Return (tensors, metadata) as diffusers wrote them before peft: `up` is scaled, no alphas."""
    tensors = {}
    for (network, path), change in changes.items():
        middle = "lora" if network == "unet" else "lora_linear_layer"
        tensors[f"{network}.{path}.{middle}.down.weight"] = change.down
        tensors[f"{network}.{path}.{middle}.up.weight"] = _scaled(change)
    return tensors, {"format": "pt"}


def processors(changes: Changes) -> tuple[dict, dict]:
    """Return (tensors, metadata) in diffusers' first format, for attention layers only.

    Their names are as `attn1.processor.to_out_lora`.
    """
    old = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    tensors = {}
    for (network, path), change in changes.items():
        place, _, leaf = path.replace("to_out.0", "to_out").rpartition(".")
        base = f"{network}.{place}.{'processor.' if network == 'unet' else ''}{old.get(leaf, leaf)}"
        tensors[f"{base}_lora.down.weight"] = change.down
        tensors[f"{base}_lora.up.weight"] = _scaled(change)
    return tensors, {}


class Files:
    """Writes LoRA files into a test's folder. formats: the functions that make their contents."""

    changes = staticmethod(changes)
    formats = MappingProxyType(
        {"kohya": kohya, "peft": peft, "diffusers": diffusers, "processors": processors}
    )

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, form: str, changes: Changes, name: str = "detail", **more) -> Path:
        """Write a file in the format `form`, a key of `formats`; return its path."""
        return self.raw(*self.formats[form](changes, **more), name=name)

    def raw(self, tensors: dict, metadata: dict | None = None, name: str = "detail") -> Path:
        """Write a safetensors file of these tensors; return its path."""
        path = self.folder / f"{name}.safetensors"
        save_file(
            {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()},
            path,
            metadata,
        )
        return path


@pytest.fixture
def files(tmp_path) -> Files:
    """Return a writer of LoRA files: files(form, changes) writes one into tmp_path."""
    return Files(tmp_path)


@pytest.fixture(scope="session")
def models(tiny_model) -> SimpleNamespace:
    """Return the tiny model's UNet and text encoder, and their Backends, on the CPU in fp32."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel.from_pretrained(tiny_model / "unet")
    vae = AutoencoderKL.from_pretrained(tiny_model / "vae")
    text_encoder = CLIPTextModel.from_pretrained(tiny_model / "text_encoder")
    for network in (unet, vae, text_encoder):
        network.eval().requires_grad_(False)
    backends = Backends(unet, vae, torch.device("cpu"), torch.float32)
    return SimpleNamespace(unet=unet, text_encoder=text_encoder, backends=backends)


@pytest.fixture(scope="session")
def networks(models) -> dict[str, nn.Module]:
    """Return the tiny model's networks by the names that Adapters takes."""
    return {"unet": models.unet, "text_encoder": models.text_encoder}


@pytest.fixture
def adapters(networks):
    """Yield the tiny model's Adapters; at the end, remove all LoRAs from the model."""
    adapters = Adapters(networks)
    yield adapters
    adapters.install(())


@pytest.fixture(scope="session")
def ldm_names(models) -> dict[str, str]:
    """Return LDM's module paths of the tiny model's UNet by diffusers' paths."""
    return ldm_keys.unet_names(models.unet.config)


@pytest.fixture(scope="session")
def xl() -> dict[str, nn.Module]:
    """Return networks of Stable Diffusion XL, untrained: its structure and context size (2048).

    All other layers are narrow.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(1, 2, 2),
        norm_num_groups=4,
        use_linear_projection=True,
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )
    text = CLIPTextConfig(
        vocab_size=99,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=97,
        eos_token_id=98,
    )
    return {
        "unet": unet,
        "text_encoder": CLIPTextModel(text),
        "text_encoder_2": CLIPTextModelWithProjection(text),
    }
