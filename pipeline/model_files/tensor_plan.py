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
    """The configuration and weights files of one network, from which it can be loaded.

    name: "unet", "vae", "text_encoder" or "text_encoder_2". config: its config.json. place: the
    file or folder that error messages name. files: its weights files, several where they are
    sharded. prefix: for a single file in CompVis' original layout, what the names of the network's
    tensors begin with ("first_stage_model."); None for files with diffusers' tensor names.
    """

    name: str
    config: dict[str, Any]
    place: Path
    files: tuple[WeightsFile, ...]
    prefix: str | None = None

    def locate(self, keys: Iterable[str]) -> dict[str, Stored]:
        """Find under which name and in which form the files store each tensor of the network.

        Returns a dict from the network's name for a tensor to that name and form. keys: for a file
        in CompVis' original layout, the tensors to find, by the network's names; raises KeyError
        for one that the layout lacks. For files with diffusers' names it is not used: the dict then
        has every tensor in the files.
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
    """From where to load one tensor of a network.

    key: the tensor's name in the network's state dict. file: the file that holds it. stored: its
    name in the file, and how it must be converted (transposed, ...).
    """

    key: str
    file: WeightsFile
    stored: Stored


def current_name(component: str, key: str) -> str:
    """Return the name that recent diffusers and transformers use for the tensor `key`.

    Older ones call a VAE's attention layers differently ("query" is now "to_q"), and only some put
    "text_model." before a text encoder's names, which is removed. component: "unet", "vae",
    "text_encoder" or "text_encoder_2".
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
    """Find each tensor of a network in the files of `component`; return from where to load it.

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
    """Raise InputError where a tensor in a weights file cannot be loaded into the network's tensor.

    Its shape must fit, and it must be of floating point. shape: of the network's tensor. stored:
    name and form of the tensor in `file`.
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
