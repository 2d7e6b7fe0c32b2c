"""Which autoencoder a model decodes with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.loading.load import load


def save(tmp_path: Path, tensors: dict, name: str = "model.safetensors") -> Path:
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / name)
    return tmp_path / name


def without(*starts):
    return lambda t: {k: v for k, v in t.items() if not k.startswith(starts)}


def test_another_autoencoder(pairs, tmp_path, monkeypatch):
    """From a file in the original layout, with and without prefix, in diffusers' names, from a
    folder and from a checkpoint."""
    pair = pairs("sd1")
    plain = load_file(pair.folder / "vae/diffusion_pytorch_model.safetensors")
    changed = {k: v * 1.5 if k.endswith("conv_out.weight") else v for k, v in plain.items()}
    folder = tmp_path / "vae"
    shutil.copytree(pair.folder / "vae", folder)
    save_file(changed, folder / "diffusion_pytorch_model.safetensors")
    whole = load_file(pair.file)
    for key in [k for k in whole if k.endswith("coder.conv_out.weight")]:
        whole[key] = whole[key] * 1.5
    ldm_names = {k: v for k, v in whole.items() if k.startswith("first_stage_model.")}
    bare = {k.removeprefix("first_stage_model."): v for k, v in ldm_names.items()}
    files = {
        "diffusers": save(tmp_path, changed, "d.safetensors"),
        "prefixed": save(tmp_path, ldm_names, "p.safetensors"),
        "bare": save(tmp_path, bare, "b.safetensors"),
        "folder": folder,
        "checkpoint": save(tmp_path, whole, "c.safetensors"),
    }
    for what, path in files.items():
        models = load(pair.file, device="cpu", vae=path)
        state = models.vae.state_dict()
        assert all(torch.equal(state[k], v.float()) for k, v in changed.items()), what
        assert models.vae.config.scaling_factor == 0.18215
    assert not torch.equal(
        load(pair.file, device="cpu").vae.decoder.conv_out.weight, state["decoder.conv_out.weight"]
    )
    with pytest.raises(InputError, match="is the UNet of a diffusers folder, not an autoencoder"):
        unet = pair.folder / "unet/diffusion_pytorch_model.safetensors"
        load(pair.file, device="cpu", vae=unet)
    with pytest.raises(InputError, match="no autoencoder"):
        load(pair.file, device="cpu", vae="nowhere")


def test_a_checkpoint_without_autoencoder_says_which_it_used(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = load_file(pairs("sd1").file)
    vae = {
        k.removeprefix("first_stage_model."): v for k, v in tensors.items() if "first_stage" in k
    }
    (tmp_path / "models/some folder").mkdir(parents=True)
    save(tmp_path / "models/some folder", vae, "good-vae.safetensors")
    path = save(tmp_path / "models", without("first_stage_model.")(tensors), "bare.safetensors")
    models = load("bare", device="cpu")
    assert models.path == Path("models/bare.safetensors") and path.is_file()
    (warning,) = models.generate(steps=1, seed=1, size=(64, 64)).warnings
    assert warning.startswith("bare.safetensors holds no autoencoder; good-vae is used instead")


def test_a_checkpoint_without_autoencoder_takes_the_one_that_is_named(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = without("first_stage_model.")(load_file(pairs("sd1").file))
    path = save(tmp_path, tensors)
    models = load(path, device="cpu", vae=pairs("sd1").file)
    assert models.vae_name == "sd1" and not models.warnings
    wide = Path(shutil.copytree(pairs("sd1").folder / "vae", tmp_path / "wide/vae"))
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"latent_channels": 16}))
    with pytest.raises(InputError, match="has 16 latent channels, this model's UNet takes 4"):
        load(path, device="cpu", vae=wide)
