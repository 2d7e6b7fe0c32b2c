"""Former module and function names work for one version, with a warning."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline import old_names

ROOT = Path(__file__).parents[2]
USED = [  # (former module, its name, the module and the name now)
    ("pipeline.checkpoints", "load", "pipeline.loading.load", "load"),
    ("pipeline.checkpoints", "find", "pipeline.loading.resolve", "find_model"),
    ("pipeline.checkpoints", "choose_device", "pipeline.loading.device", "choose_device"),
    ("pipeline.checkpoints", "Models", "pipeline.model", "Models"),
    ("pipeline.checkpoints", "NoRoom", "pipeline.oom", "DeviceOutOfMemory"),
    ("pipeline.library", "scan", "pipeline.model_files.library", "scan"),
    ("pipeline.library", "named", "pipeline.model_files.library", "find_entries"),
    ("pipeline.settings", "understand", "pipeline.metadata.import_settings", "parse_settings"),
    ("pipeline.infotext", "read", "pipeline.metadata.infotext", "read"),
    ("pipeline.shelf", "Shelf", "pipeline.model_cache", "ModelCache"),
    ("pipeline.recognise", "look", "pipeline.model_files.identify", "inspect_file"),
    ("pipeline.upscaler", "UPSCALERS", "pipeline.images.upscaler", "UPSCALERS"),
    ("pipeline.lora", "read", "pipeline.lora.reading", "read_lora"),
    ("pipeline.lora", "family", "pipeline.model_files.lora_keys", "lora_family"),
]


@pytest.mark.parametrize("old, name, module, new", USED, ids=[f"{u[0]}.{u[1]}" for u in USED])
def test_a_former_name_resolves_with_a_warning(old, name, module, new):
    sys.modules.pop(old, None) if old in old_names.MOVED else None
    with pytest.warns(DeprecationWarning, match=r"is now pipeline\."):
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(module), new)


@pytest.mark.parametrize("old", old_names.MOVED)
def test_every_former_module_points_at_modules_and_names_that_exist(old):
    places, names = old_names.MOVED[old]
    modules = [importlib.import_module(place) for place in places]
    for new in names.values():
        assert any(hasattr(module, new) for module in modules), new


def test_former_modules_are_imported_from_the_package():
    sys.modules.pop("pipeline.checkpoints", None)
    vars(pipeline).pop("checkpoints", None)
    with pytest.warns(DeprecationWarning, match="pipeline.checkpoints is now"):
        from pipeline import checkpoints  # type: ignore[attr-defined]  # a former name
    assert checkpoints.load is pipeline.load


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("pipeline.nothing")
    with pytest.raises(AttributeError, match="nothing"):
        _ = importlib.import_module("pipeline.lora").nothing
    with pytest.warns(DeprecationWarning), pytest.raises(AttributeError, match="nothing"):
        sys.modules.pop("pipeline.shelf", None)
        _ = importlib.import_module("pipeline.shelf").nothing


def test_a_former_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.samplers.proof", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0 and "usage" in done.stdout
