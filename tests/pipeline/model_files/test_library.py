"""What lies in the model folders, and how the model cache loads from it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.loading.resolve import find_model
from pipeline.model_files import library


def test_everything_is_told_what_it_is(library_folder):
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


def test_a_file_that_changed_is_looked_at_again(library_folder):
    path = library_folder / "flux.safetensors"
    assert library.find_entries("checkpoint")["flux"].reason
    shutil.copy(library_folder / "detail.safetensors", path)
    assert library.find_entries("lora")["flux"].family == "SD 1.x"
    path.unlink()
    assert "flux" not in library.find_entries("lora")


def test_a_folder_that_may_not_be_read_is_passed_over(library_folder, monkeypatch):
    exists = Path.exists

    def forbidden(path, **more):
        if "mine" in path.parts:
            raise PermissionError(13, "Permission denied")
        return exists(path, **more)

    monkeypatch.setattr(Path, "exists", forbidden)
    names = {e.name for e in library.scan()}
    assert "one" not in names and {"two", "xl"} <= names


def test_names_are_unique(library_folder):
    shutil.copy(
        library_folder / "xl.safetensors", library_folder / "Stable-diffusion/xl.safetensors"
    )
    names = [e.name for e in library.scan() if e.kind == "checkpoint" and e.family == "SD XL"]
    assert sorted(names) == ["xl", "xl (models)"]
    assert {find_model(n) for n in names} == {
        Path("models/xl.safetensors"),
        Path("models/Stable-diffusion/xl.safetensors"),
    }
