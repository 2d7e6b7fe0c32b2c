"""What lies in the model folders, and how the model cache loads from it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.loading import load as loading
from pipeline.loading.resolve import find_model
from pipeline.model_cache import MAX_EXTRA_MODELS, ModelCache
from pipeline.model_files import library
from pipeline.oom import DeviceOutOfMemory


@pytest.fixture
def folder(tmp_path, monkeypatch, pairs):
    """A working directory whose ./models holds one file of each kind, oddly sorted."""
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


def test_everything_is_told_what_it_is(folder):
    found = {e.name: (e.kind, e.family, e.note, e.reason is None) for e in library.scan()}
    assert found == {
        "one": ("checkpoint", "SD 1.x", "SD 1.x, single file", True),
        "two": ("checkpoint", "SD 2.x", "SD 2.x, diffusers folder", True),
        "xl": ("checkpoint", "SD XL", "SD XL, single file", True),
        "detail": ("lora", "SD 1.x", "SD 1.x LoRA", True),
        "bad": ("embedding", "SD XL", "SD XL embedding", True),
        "soft": ("vae", "", "VAE", True),
        "flux": ("checkpoint", "", "a Flux model", False),
        "old": ("checkpoint", "", "pickle", False),
        "broken": ("checkpoint", "", "damaged", False),
    }
    reasons = {e.name: e.reason for e in library.scan()}
    assert reasons["flux"] == (
        "flux.safetensors is a Flux model; a checkpoint of SD 1.x, SD 2.x or SD XL is wanted."
    )
    assert "pickle" in reasons["old"] and "broken.safetensors" in reasons["broken"]


def test_a_file_that_changed_is_looked_at_again(folder):
    path = folder / "flux.safetensors"
    assert library.find_entries("checkpoint")["flux"].reason
    shutil.copy(folder / "detail.safetensors", path)
    assert library.find_entries("lora")["flux"].family == "SD 1.x"
    path.unlink()
    assert "flux" not in library.find_entries("lora")


def test_a_folder_that_may_not_be_read_is_passed_over(folder, monkeypatch):
    exists = Path.exists

    def forbidden(path, **more):
        if "mine" in path.parts:
            raise PermissionError(13, "Permission denied")
        return exists(path, **more)

    monkeypatch.setattr(Path, "exists", forbidden)
    names = {e.name for e in library.scan()}
    assert "one" not in names and {"two", "xl"} <= names


def test_names_are_unique(folder):
    shutil.copy(folder / "xl.safetensors", folder / "Stable-diffusion/xl.safetensors")
    names = [e.name for e in library.scan() if e.kind == "checkpoint" and e.family == "SD XL"]
    assert sorted(names) == ["xl", "xl (models)"]
    assert {find_model(n) for n in names} == {
        Path("models/xl.safetensors"),
        Path("models/Stable-diffusion/xl.safetensors"),
    }


@pytest.fixture
def model_cache(folder):
    return ModelCache(loading.load("one", device="cpu"), device="cpu")


def test_model_cache_loads_by_name_and_keeps_a_few(model_cache):
    assert model_cache.get() is model_cache.first is model_cache.get("one")
    two = model_cache.get("two")
    assert two.family == "sd2" and model_cache.get("two") is two
    assert model_cache.get("xl").name == "xl" and MAX_EXTRA_MODELS == 1
    again = model_cache.get("two")  # had made room
    assert again is not two and again.hash == two.hash
    assert model_cache.get("one") is model_cache.first  # stays


@pytest.mark.parametrize(
    "name", ["../one", "/etc/passwd", "someone/model", "models/xl.safetensors"]
)
def test_model_cache_knows_names_of_its_list_only(model_cache, name):
    with pytest.raises(InputError, match="to choose; there is"):
        model_cache.get(name)
    for bad in ({"one": 1}, 7, ["one"]):
        with pytest.raises(InputError, match="by their names"):
            model_cache.get(bad)
        with pytest.raises(InputError, match="by their names"):
            model_cache.get("one", bad)
    assert (
        model_cache.hashes()["one"] == model_cache.first.hash and model_cache.hashes()["xl"] == ""
    )


def test_a_bad_file_leaves_what_serves_alone(model_cache, folder):
    for name, words in (("flux", "is a Flux model"), ("broken", "broken.safetensors")):
        with pytest.raises(InputError, match=words):
            model_cache.get(name)
    tensors = load_file(folder / "xl.safetensors")
    tensors["model.diffusion_model.out.2.bias"][:] = torch.nan
    save_file(tensors, folder / "xl.safetensors")
    with pytest.raises(InputError, match="not finite"):
        model_cache.get("xl")
    assert model_cache.get() is model_cache.first
    assert model_cache.first.generate(steps=1, seed=1, size=(64, 64)).images


def test_the_old_model_serves_while_the_new_one_loads(model_cache, monkeypatch):
    began, go = threading.Event(), threading.Event()
    load = loading.load

    def slow(*arguments, **options):
        began.set()
        assert go.wait(60)
        return load(*arguments, **options)

    monkeypatch.setattr(loading, "load", slow)
    got = []
    thread = threading.Thread(target=lambda: got.append(model_cache.get("two")))
    thread.start()
    assert began.wait(60)
    assert model_cache.get().generate(steps=1, seed=1, size=(64, 64)).images and not got
    go.set()
    thread.join()
    assert got[0].name == "two"


def test_model_cache_gives_another_autoencoder(model_cache, folder):
    assert [e.name for e in model_cache.vaes()] == ["soft"]
    soft = model_cache.get("one", "soft")
    assert soft is model_cache.get("one", "soft") and soft is not model_cache.get("one")
    assert model_cache.get("one") is model_cache.first
    ask = {"steps": 1, "seed": 1, "size": (64, 64)}
    assert "Model: one, VAE: soft, " in soft.generate(**ask).parameters[0]
    assert "VAE" not in model_cache.first.generate(**ask).parameters[0]
    with pytest.raises(InputError, match=r"no autoencoder '../soft' to choose; there is soft"):
        model_cache.get("one", "../soft")


def test_no_room_beside_the_others_makes_room(model_cache, monkeypatch):
    held, load = [], loading.load

    def tight(*arguments, **options):
        held.append(len(model_cache._held))
        if model_cache._held and str(arguments[0]).endswith("two"):
            raise DeviceOutOfMemory("It does not fit.")
        return load(*arguments, **options)

    monkeypatch.setattr(loading, "load", tight)
    model_cache.get("xl")
    assert model_cache.get("two").name == "two" and held == [0, 1, 0]
    assert model_cache.get() is model_cache.first
