"""Plan where in a component's files each of its tensors lies, and check that all are there.

The plan is made from headers alone, before a weight is read: every tensor that the network asks
for must be in the files, in its shape, so that nothing is ever initialised at random.
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
    """The files of one network: UNet, autoencoder or a text encoder.

    place: the path that sentences name. prefix: where the network stands in a file in the original
    layout (see ldm_keys.PREFIXES); None for files with diffusers' own tensor names.
    """

    name: str
    config: dict[str, Any]
    place: Path
    files: tuple[WeightsFile, ...]
    prefix: str | None = None

    def locate(self, keys: Iterable[str]) -> dict[str, Stored]:
        """Return how the tensors `keys` (see `current_name`) are stored; those that are known."""
        if self.prefix is not None:
            return ldm_keys.plan(self.name, self.prefix, self.config, keys)
        return {
            current_name(self.name, key): Stored(key)
            for file in self.files
            for key in file.header.tensors
        }


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the network `key`: the file that holds it, and how it is stored there."""

    key: str
    file: WeightsFile
    stored: Stored


def current_name(component: str, key: str) -> str:
    """Return a tensor's name as today's classes have it; older files have older names."""
    if component in TEXT_ENCODERS:
        return key.removeprefix("text_model.")
    if component == "vae":
        old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
        return re.sub(
            r"(attentions\.\d+\.)(query|key|value|proj_attn)\b", lambda m: m[1] + old[m[2]], key
        )
    return key


def plan_tensors(component: ComponentFiles, shapes: Mapping[str, Shape]) -> list[PlannedTensor]:
    """Return where each tensor of the network lies; InputError for what is missing or wrong.

    shapes: of the network's state dict, by the names that it has there.
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
    """Refuse a tensor of another shape than the network's `shape`, or of a quantized type."""
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
