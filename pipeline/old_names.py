"""Former module names, which can still be imported for one version.

Importing one gives a DeprecationWarning and a module that has the names of the new module.
`python -m FORMER_NAME` works too. To move a module, add an entry to MOVED. This file will be
deleted with the next version.
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

# former module: (the modules that define its names now, {former name: present name})
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
# module that was not moved: {former name: present name}
RENAMED: Mapping[str, Mapping[str, str]] = {
    "pipeline.lora": {
        "Lora": "LoraFile",
        "Part": "LowRankDelta",
        "family": "lora_family",
        "read": "read_lora",
    },
}


def find_renamed(module: ModuleType, name: str) -> Any:
    """Return the object that `module` had under a former name, with a DeprecationWarning.

    For the `__getattr__` of modules some of whose names were changed, so that old code still runs.
    Raises AttributeError for a name that never was one.
    """
    new = RENAMED.get(module.__name__, {}).get(name)
    if new is None:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    _warn(f"{module.__name__}.{name}", f"{module.__name__}.{new}")
    return getattr(module, new)


def install() -> None:
    """Make imports of modules under their former names work, such as pipeline.checkpoints.

    It adds an import finder to sys.meta_path, as the last one; once only.
    """
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
        new_modules, names = MOVED[module.__name__]
        _warn(module.__name__, new_modules[0])

        def find(name: str) -> Any:
            if not name.startswith("__"):
                for new in new_modules:
                    value = getattr(importlib.import_module(new), names.get(name, name), None)
                    if value is not None:
                        return value
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find

    def get_code(self, fullname: str) -> CodeType:
        """Return code that runs a renamed module, for `python -m FORMER_NAME`."""
        new = MOVED[fullname][0][0]
        source = f"import runpy; runpy.run_module({new!r}, run_name='__main__', alter_sys=True)"
        return compile(source, fullname, "exec")


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}.", DeprecationWarning, stacklevel=3)
