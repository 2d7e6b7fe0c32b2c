"""Former module names, importable for one version: each warns and hands out the new module's names.

`python -m` of a former name works too. A row of MOVED is all that a moved module needs; the file
goes with the next version.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

# former module: (the modules that hold its names now, {former name: name now})
MOVED: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "pipeline.checkpoints": (
        (
            *("pipeline.loading.load", "pipeline.loading.resolve", "pipeline.loading.device"),
            *("pipeline.loading.defaults", "pipeline.loading.hub", "pipeline.oom"),
        ),
        {"find": "find_model", "NoRoom": "DeviceOutOfMemory"},
    ),
    "pipeline.library": (
        ("pipeline.model_files.library", "pipeline.model_files.identify"),
        {"named": "find_entries", "advice": "how_to_use"},
    ),
    "pipeline.settings": (
        ("pipeline.metadata.import_settings",),
        {"understand": "parse_settings"},
    ),
    "pipeline.infotext": (("pipeline.metadata.infotext",), {"clean": "clean_text"}),
    "pipeline.receipt": (
        ("pipeline.metadata.receipt", "pipeline.metadata.fingerprint"),
        {"mark": "fingerprint", "Mark": "LatentFingerprint", "of": "from_image"},
    ),
    "pipeline.recognise": (
        ("pipeline.model_files.identify",),
        {"recognise": "identify", "look": "inspect_file", "Recognised": "FileIdentity"},
    ),
    "pipeline.shelf": (
        ("pipeline.model_cache",),
        {"Shelf": "ModelCache", "KEEP": "MAX_EXTRA_MODELS"},
    ),
    "pipeline.upscaler": (("pipeline.images.upscaler",), {}),
    "pipeline.samplers.proof": (("pipeline.samplers.convergence",), {}),
}
# former name: name now, in modules that stand where they stood
RENAMED: Mapping[str, Mapping[str, str]] = {
    "pipeline.lora": {
        "Lora": "LoraFile",
        "Part": "LowRankDelta",
        "family": "lora_family",
        "read": "read_lora",
    },
}


def find_renamed(module: ModuleType, name: str) -> Any:
    """Return what `name` was called in `module` before; AttributeError where it was nothing."""
    new = RENAMED.get(module.__name__, {}).get(name)
    if new is None:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    _warn(f"{module.__name__}.{name}", f"{module.__name__}.{new}")
    return getattr(module, new)


def install() -> None:
    """Let the import system find the former modules, after everything else."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Loader()) if fullname in MOVED else None


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        places, names = MOVED[module.__name__]
        _warn(module.__name__, places[0])

        def find(name: str) -> Any:
            if not name.startswith("__"):
                for place in places:
                    found = getattr(importlib.import_module(place), names.get(name, name), None)
                    if found is not None:
                        return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find

    def get_code(self, fullname: str) -> CodeType:
        """Return what `python -m` of the former name runs."""
        new = MOVED[fullname][0][0]
        source = f"import runpy; runpy.run_module({new!r}, run_name='__main__', alter_sys=True)"
        return compile(source, fullname, "exec")


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}.", DeprecationWarning, stacklevel=3)
