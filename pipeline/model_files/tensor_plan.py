"""Find each tensor of a network in its files, by their headers, before any weight is read.

Every tensor of the network must be in the files and have the right shape, so that no weight is left
at its random initial value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, short
from . import ldm_keys
from .file_reader import WeightsFile
from .ldm_keys import Stored

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ComponentFiles:
    """The configuration and weights files of one network.

    name: "unet", "vae", "text_encoder" or "text_encoder_2". config: its config.json. place: the
    path that error messages name. files: its weights files, several where they are sharded.
    prefix: what its tensor names begin with in a single file in CompVis' original layout, see
    ldm_keys.PREFIXES; None for files with diffusers' tensor names.
    """

    name: str
    config: dict[str, Any]
    place: Path
    files: tuple[WeightsFile, ...]
    prefix: str | None = None

    def locate(self, keys: Iterable[str]) -> dict[str, Stored]:
        """Return a dict from tensor name to how the files store the tensor.

        keys: names of the network's tensors as `current_name` returns them. For files with
        diffusers' names the dict has the tensors of the files instead, whatever `keys` are.
        Raises KeyError for a key that CompVis' original layout does not have.
        """
        if self.prefix is not None:
            return ldm_keys.plan(self.name, self.prefix, self.config, keys)
        return {
            current_name(self.name, key): Stored(key)
            for file in self.files
            for key in file.header.tensors
        }


@dataclass(frozen=True)
class PlannedTensor:
    """Where one tensor of a network is: the file that holds it, and how it is stored there.

    key: the tensor's name in the network's state dict.
    """

    key: str
    file: WeightsFile
    stored: Stored


def current_name(component: str, key: str) -> str:
    """Return the current name of a tensor that files of older versions name differently.

    component: "unet", "vae", "text_encoder" or "text_encoder_2". For text encoders "text_model." is
    removed, which only some versions of transformers put before the names.
    """
    if component in TEXT_ENCODERS:
        return key.removeprefix("text_model.")
    if component == "vae":
        old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
        return re.sub(
            r"(attentions\.\d+\.)(query|key|value|proj_attn)\b", lambda m: m[1] + old[m[2]], key
        )
    return key


def plan_tensors(component: ComponentFiles, shapes: Mapping[str, Shape]) -> list[PlannedTensor]:
    """Return where each tensor of a network is in the files of `component`.

    shapes: from tensor name to shape, of the network's state dict. Raises InputError where tensors
    are missing, have another shape, or are not stored as floating-point numbers.
    """
    wanted = {current_name(component.name, key): (key, shape) for key, shape in shapes.items()}
    stored = component.locate(wanted)
    held = {key: file for file in component.files for key in file.header.tensors}
    lost = [
        stored[name].name if name in stored else name
        for name in wanted
        if name not in stored or stored[name].name not in held
    ]
    if lost:
        raise InputError(_missing_sentence(component.place, list(dict.fromkeys(lost))))
    for name, (_, shape) in wanted.items():
        _check_tensor(component, stored[name], held[stored[name].name], shape)
    return [
        PlannedTensor(key, held[stored[name].name], stored[name])
        for name, (key, _) in wanted.items()
    ]


def _check_tensor(
    component: ComponentFiles, stored: Stored, file: WeightsFile, shape: Shape
) -> None:
    """Raise InputError where a stored tensor does not fit `shape` or is no floating-point tensor.

    shape: that of the network's tensor. stored, file: where it is.
    """
    info, wanted = file.header.tensors[stored.name], stored.shape(shape)
    if tuple(info["shape"]) != wanted:
        by = "its config.json asks" if component.place.is_dir() else "the others ask"
        raise InputError(
            f"{short(component.place)} is damaged: tensor {short(stored.name)} has the shape"
            f" {short(tuple(info['shape']))}, {by} for {wanted}."
        )
    if info["dtype"] not in FLOATS:
        raise InputError(
            f"{short(component.place)}: tensor {short(stored.name)} is of type {info['dtype']};"
            f" weights in {', '.join(FLOATS)} are loaded, no quantized ones."
        )


def _missing_sentence(place: Path, lost: list[str]) -> str:
    more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
    verb = "are" if more else "is"
    return f"The weights in {short(place)} are incomplete: {short(lost[0])}{more} {verb} missing."
