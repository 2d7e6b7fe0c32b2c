"""A model's files, whatever their layout: which configuration, which tensor where, which tokenizer.

A source is a folder in diffusers' format or a single .safetensors file in the original layout. Both
passed the preflight; of the weights nothing but headers was read. Each component's `plan` is made
and checked before the first weight is read, and nothing is ever initialised at random.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, short
from . import diffusers_folder, identify, ldm_keys, library
from .json_file import read_json
from .ldm_keys import Stored
from .safetensors_header import read_header

if TYPE_CHECKING:
    import torch

CLIP = Path(__file__).parents[1] / "clip"  # the tokenizer that single files leave out
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Part:
    """The files of one component. `places(keys)` tells where tensors of diffusers' names lie."""

    config: dict[str, Any]
    place: Path  # named in sentences
    files: tuple[Path, ...]
    places: Callable[[Iterable[str]], dict[str, Stored]]


@dataclass(frozen=True)
class Source:
    """family: sd1, sd2 or xl. prediction: None where the files don't tell, of SD 2.x alone."""

    path: Path
    family: str
    parts: dict[str, Part]
    scheduler: dict[str, Any]
    prediction: str | None
    tokenizers: dict[str, Path]
    zero_empty_negative: bool
    what: str
    warnings: tuple[str, ...] = ()

    @property
    def hashed(self) -> tuple[Path, ...]:
        """The files whose SHA-256 is the model's hash."""
        return self.parts["unet"].files


def open_source(path: Path) -> Source:
    """The source that a folder or a .safetensors file is; InputError where it is neither."""
    return _open_folder(path) if path.is_dir() else _open_file(path)


def with_vae(source: Source, path: Path | None) -> Source:
    """`source` with the autoencoder of another file, model folder or autoencoder's folder.

    None: its own, or where it has none one of ./models, and a warning that says which.
    """
    warnings = source.warnings
    if path is not None:
        part = open_vae(path, source.family)
    elif "vae" in source.parts:
        return source
    else:
        part, used = _other_vae(source.family)
        name = source.path.name
        warnings += (f"{name} holds no autoencoder; {used} is used instead, --vae names another.",)
    latents, takes = part.config.get("latent_channels", 4), source.parts["unet"].config
    if latents != takes.get("out_channels", 4):
        raise InputError(
            f"{short(part.place)} has {latents} latent channels, this model's UNet takes"
            f" {takes.get('out_channels', 4)}; it is another architecture's autoencoder."
        )
    return replace(source, parts=source.parts | {"vae": part}, warnings=warnings)


def _other_vae(family: str) -> tuple[Part, str]:
    """(an autoencoder for a checkpoint of `family` that has none, what it is called).

    From ./models; InputError where there is none. Shapes do not tell SD XL's from SD 1.x's, so that
    of another checkpoint of the family goes before files that are an autoencoder alone.
    """
    label = identify.FAMILIES[family]
    own = [
        e for e in library.find_entries("checkpoint").values() if e.path.is_relative_to(library.OWN)
    ]
    own = [e for e in own if e.family == label and not e.note.endswith(library.NO_VAE)]
    for entry in (e for e in (*own, *library.find_entries("vae").values()) if e.reason is None):
        return open_vae(entry.path, family), entry.name
    raise InputError(
        f"This checkpoint holds no autoencoder; put one for {label} into the folder {library.OWN},"
        " or name one."
    )


def open_vae(path: Path, family: str) -> Part:
    """The autoencoder in a .safetensors file of either layout, or in a folder."""
    if path.is_dir():
        folder = path.parent if (path / "config.json").is_file() else path
        if folder is not path and path.name != "vae":
            raise InputError(
                f"{short(path)} is no autoencoder: give its .safetensors file, a model's folder, or"
                " the folder vae of one."
            )
        diffusers_folder.check_component(folder, "vae")
        return _folder_part(folder, "vae")
    found, shapes = identify.inspect_file(path)
    if found.kind == "checkpoint" and "vae" in found.configs:
        return _file_part(path, "vae", ldm_keys.PREFIXES["vae"][found.family], found.configs["vae"])
    if found.kind != "vae":
        raise InputError(f"{short(path)} is {found.what}, not an autoencoder.")
    try:
        prefix, config = identify.vae_file(shapes, family)
    except identify.DamagedCheckpoint as fault:
        raise InputError(f"{short(path)} {fault}.") from None
    if prefix is None:  # diffusers' own names
        return Part(config, path, (path,), lambda keys: _stored(path, "vae", keys))
    return _file_part(path, "vae", prefix, config)


def _open_folder(folder: Path) -> Source:
    diffusers_folder.check_folder(folder)
    names = diffusers_folder.components(folder)
    index = read_json(folder / "model_index.json")
    parts = {n: _folder_part(folder, n) for n in names if diffusers_folder.COMPONENTS[n].weights}
    family = identify.folder_family(folder)
    scheduler = diffusers_folder.read_config(folder, "scheduler")
    return Source(
        folder,
        family,
        parts,
        scheduler,
        scheduler.get("prediction_type") or "epsilon",
        {n: folder / n for n in names if n.startswith("tokenizer")},
        bool(index.get("force_zeros_for_empty_prompt", family == "xl")) and family == "xl",
        f"{identify.FAMILIES[family]}, diffusers folder",
    )


def _open_file(path: Path) -> Source:
    found, _ = identify.inspect_file(path)
    if found.kind != "checkpoint":
        raise InputError(f"{short(path)} is {found.what}; {library.how_to_use(found)}")
    parts = {}
    for name, config in found.configs.items():
        if name != "scheduler":
            parts[name] = _file_part(path, name, ldm_keys.PREFIXES[name][found.family], config)
    tokenizers = {"tokenizer": CLIP} | ({"tokenizer_2": CLIP} if found.family == "xl" else {})
    return Source(
        path,
        found.family,
        parts,
        found.configs["scheduler"],
        found.prediction,
        tokenizers,
        found.family == "xl",
        f"{identify.FAMILIES[found.family]}, single file",
    )


def _folder_part(folder: Path, name: str) -> Part:
    files = diffusers_folder.find_weights(folder, name).files
    stored: dict[str, Stored] = {}
    for file in files:
        stored |= _stored(file, name)
    config = diffusers_folder.read_config(folder, name)
    return Part(config, folder / name, files, lambda _: stored)


def _stored(file: Path, name: str, _=()) -> dict[str, Stored]:
    return {_modern(name, key): Stored(key) for key in read_header(file).tensors}


def _file_part(path: Path, name: str, prefix: str, config: dict) -> Part:
    return Part(config, path, (path,), lambda keys: ldm_keys.plan(name, prefix, config, keys))


def _modern(name: str, key: str) -> str:
    """A tensor's name as today's classes have it; older files have older names."""
    if name in TEXT_ENCODERS:
        return key.removeprefix("text_model.")
    if name == "vae":
        old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
        return re.sub(
            r"(attentions\.\d+\.)(query|key|value|proj_attn)\b", lambda m: m[1] + old[m[2]], key
        )
    return key


@dataclass(frozen=True)
class Plan:
    """A component without weights, and where each of them lies; checked, and nothing read yet."""

    part: Part
    model: Any
    asked: dict[str, str]  # name as today's classes have it: as this model has it
    stored: dict[str, Stored]
    file_of: dict[str, Path]

    def fill(self, dtype: torch.dtype) -> Any:
        """The component on the CPU, evaluating, every tensor from the files."""
        tensors = {}
        for file in self.part.files:
            keys = {k: self.stored[k] for k in self.asked if self.file_of[k] == file}
            taken = _take(file, keys, dtype)
            tensors |= {self.asked[k]: tensor for k, tensor in taken.items()}
        try:
            self.model.load_state_dict(tensors, assign=True)
        except RuntimeError:
            place = short(self.part.place)
            raise InputError(f"{place} was changed while it was loaded; try again.") from None
        return self.model.eval().requires_grad_(False)


def plan(source: Source, name: str) -> Plan:
    """The plan of UNet, autoencoder or a text encoder; InputError for what is missing or wrong."""
    part = source.parts[name]
    try:
        model = _bare(name, part.config)
    except Exception as error:  # a configuration has more ways to be wrong than can be listed
        reason = short(str(error).strip() or repr(error))
        raise InputError(f"{short(part.place)} cannot be loaded: {reason}") from None
    asked = {_modern(name, k): (k, tuple(t.shape)) for k, t in model.state_dict().items()}
    stored = part.places(asked)
    headers = _headers(part)
    _check(part, {k: shape for k, (_, shape) in asked.items()}, stored, headers)
    file_of = {k: headers[stored[k].name][0] for k in asked}
    return Plan(part, model, {k: name for k, (name, _) in asked.items()}, stored, file_of)


def _bare(name: str, config: dict):
    """The component without weights: its parameters lie on the meta device."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        if name in TEXT_ENCODERS:
            import transformers

            cls = getattr(transformers, diffusers_folder.COMPONENTS[name].classes[0])
            return cls(transformers.CLIPTextConfig.from_dict(config))
        import diffusers

        return getattr(diffusers, diffusers_folder.COMPONENTS[name].classes[0]).from_config(config)


def _headers(part: Part) -> dict[str, tuple[Path, dict]]:
    """Each tensor of the part's files: its file, and what the header says of it."""
    return {
        key: (file, info) for file in part.files for key, info in read_header(file).tensors.items()
    }


def _check(part: Part, asked: dict, stored: dict[str, Stored], headers: dict) -> None:
    """Every tensor that the configuration asks for must be in the files, in its shape."""
    lost = [
        stored[k].name if k in stored else k
        for k in asked
        if k not in stored or stored[k].name not in headers
    ]
    if lost:
        raise InputError(_incomplete(part.place, list(dict.fromkeys(lost))))
    for key, shape in asked.items():
        name, wanted = stored[key].name, stored[key].shape(shape)
        _, info = headers[name]
        if tuple(info["shape"]) != wanted:
            by = "its config.json asks" if part.place.is_dir() else "the others ask"
            raise InputError(
                f"{short(part.place)} is damaged: tensor {short(name)} has the shape"
                f" {short(tuple(info['shape']))}, {by} for {wanted}."
            )
        if info["dtype"] not in FLOATS:
            raise InputError(
                f"{short(part.place)}: tensor {short(name)} is of type {info['dtype']}; weights in"
                f" {', '.join(FLOATS)} are loaded, no quantized ones."
            )


def _take(file: Path, keys: dict[str, Stored], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors by diffusers' names, copied: the file may be replaced while the model serves."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {
                key: stored.take(opened.get_tensor(stored.name)).to(dtype, copy=True).contiguous()
                for key, stored in keys.items()
            }
    except (SafetensorError, OSError) as error:
        reason = short(str(error).strip() or repr(error))
        raise InputError(f"{short(file)} cannot be loaded: {reason}") from None


def _incomplete(place: Path, lost: list[str]) -> str:
    more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
    verb = "are" if more else "is"
    return f"The weights in {short(place)} are incomplete: {short(lost[0])}{more} {verb} missing."
