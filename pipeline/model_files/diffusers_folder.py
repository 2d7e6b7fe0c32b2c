"""Read and check a model folder in diffusers' format, before anything is loaded from it.

Model files come from strangers. A file that would make a loader crash, print a traceback or run
the file's own code raises an InputError of one sentence here. Only JSON files and the headers of
weights files are read, so gigabytes of weights take milliseconds; nothing here imports torch.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, reason_of, short
from . import folder_checks
from .file_reader import FileReader, WeightsFile
from .safetensors_header import MAX_TENSORS, PICKLES


@dataclass(frozen=True)
class Component:
    """What a model folder's subfolder (UNet, tokenizer, ...) must hold so that it can be loaded.

    classes: names of the diffusers or transformers classes that are accepted; empty for any.
    config: file name of its configuration. weights: file name of its weights without ending and
    variant ("model" for model.fp16.safetensors); None for a component without weights.
    """

    classes: tuple[str, ...]
    config: str
    weights: str | None = None


COMPONENTS = {  # by the name of the subfolder
    "unet": Component(("UNet2DConditionModel",), "config.json", "diffusion_pytorch_model"),
    "vae": Component(("AutoencoderKL",), "config.json", "diffusion_pytorch_model"),
    "text_encoder": Component(("CLIPTextModel",), "config.json", "model"),
    "tokenizer": Component(("CLIPTokenizer", "CLIPTokenizerFast"), "tokenizer_config.json"),
    "scheduler": Component((), "scheduler_config.json"),
    "text_encoder_2": Component(("CLIPTextModelWithProjection",), "config.json", "model"),
    "tokenizer_2": Component(("CLIPTokenizer", "CLIPTokenizerFast"), "tokenizer_config.json"),
}
PLAIN = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
EXTRAS = ("generation.json", "vocabulary.json")  # optional files of this project's own models
PIPELINES = {  # from the class name of diffusers' pipeline to the names of its components
    "StableDiffusionPipeline": PLAIN,
    "StableDiffusionImg2ImgPipeline": PLAIN,
    "StableDiffusionInpaintPipeline": PLAIN,
    "StableDiffusionXLPipeline": tuple(COMPONENTS),
    "StableDiffusionXLImg2ImgPipeline": tuple(COMPONENTS),
    "StableDiffusionXLInpaintPipeline": tuple(COMPONENTS),
}
TOKENIZER_FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)


@dataclass(frozen=True)
class FolderComponent:
    """The files of one network in a diffusers folder, opened before its weights are loaded.

    config: its parsed config.json. weights: its .safetensors files, sorted by name; several where
    the weights are sharded.
    """

    config: dict[str, Any]
    weights: tuple[WeightsFile, ...]


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a CLIP tokenizer, kept in memory until the tokenizer is built from them.

    place: the folder that they were read from. contents: from file name ("vocab.json") to bytes.
    """

    place: Path
    contents: dict[str, bytes]


@dataclass(frozen=True)
class ModelFolder:
    """The checked content of a model folder in diffusers' format, without the weights.

    index, scheduler: the parsed model_index.json and scheduler_config.json. networks, tokenizers:
    by component name ("unet", "tokenizer_2"). extras: from file name to parsed content of
    generation.json (default settings) and vocabulary.json (the words that a small model knows),
    where they exist; only this project's own models have them.
    """

    index: dict[str, Any]
    networks: dict[str, FolderComponent]
    scheduler: dict[str, Any]
    tokenizers: dict[str, TokenizerFiles]
    extras: dict[str, Any]


def read_folder(folder: Path, files: FileReader) -> ModelFolder:
    """Read and check a diffusers folder of Stable Diffusion 1.x, 2.x or XL.

    Raises InputError for another architecture, a missing or damaged file, a link out of the
    folder, and components that do not fit each other.
    """
    index = read_index(folder, files)
    networks, tokenizers, scheduler = {}, {}, {}
    for name in PIPELINES[index["_class_name"]]:
        if COMPONENTS[name].weights:
            networks[name] = read_network(folder, name, files)
        else:
            check_links(folder, folder / name)
            config = _read_config(folder, name, files)
            if name == "scheduler":
                scheduler = config
            else:
                tokenizers[name] = _read_tokenizer(folder / name, files)
    folder_checks.check_fit(folder, {name: part.config for name, part in networks.items()})
    extras = {n: files.json(folder / n) for n in EXTRAS if (folder / n).exists()}
    return ModelFolder(index, networks, scheduler, tokenizers, extras)


def read_network(folder: Path, name: str, files: FileReader) -> FolderComponent:
    """Read the configuration and the weights headers of the network `name` ("unet", "vae", ...).

    folder: the model folder, of which the network is the subfolder `name`. Raises InputError for a
    missing or damaged file, another class of network, and a link out of `folder`.
    """
    check_links(folder, folder / name)
    config = _read_config(folder, name, files)
    weights = tuple(files.weights(path) for path in _find_weights(folder, name, files))
    return FolderComponent(config, weights)


def read_index(folder: Path, files: FileReader) -> dict[str, Any]:
    """Return the parsed model_index.json of a model folder.

    Raises InputError where it is missing or damaged, or names a pipeline or a component class that
    cannot be loaded here.
    """
    if not folder.is_dir():
        raise InputError(f"There is no model folder {short(folder)}.")
    if not os.path.lexists(folder / "model_index.json"):
        raise InputError(
            f"{short(folder)} is no model folder in diffusers' format: it has no model_index.json."
        )
    for name in ("model_index.json", *EXTRAS):
        if os.path.lexists(folder / name):
            _check_inside(_allowed_roots(folder), folder / name)
    index = files.json(folder / "model_index.json")
    if not isinstance(index, dict):
        raise InputError(f"{short(folder / 'model_index.json')} must hold an object.")
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise InputError(
            f"{short(folder)} is a {short(kind)}, which is another architecture; this version"
            " loads Stable Diffusion 1.x, 2.x (StableDiffusionPipeline) and XL"
            " (StableDiffusionXLPipeline)."
        )
    for name in PIPELINES[kind]:
        component, entry = COMPONENTS[name], index.get(name)
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
            raise InputError(f"model_index.json of {short(folder)} names no {name}.")
        if component.classes and entry[1] not in component.classes:
            raise InputError(
                f"The {name} of {short(folder)} is a {short(entry[1])}; only"
                f" {component.classes[0]} can be loaded."
            )
    return index


def _read_config(folder: Path, name: str, files: FileReader) -> dict[str, Any]:
    """Return the parsed configuration file of the component `name` ("unet", "scheduler", ...).

    folder: the model folder. {} for a tokenizer without configuration. Raises InputError where the
    file is missing or damaged, names a class that cannot be loaded, holds a number too large for a
    real model, or a noise schedule that the samplers do not have.
    """
    path = folder / name / COMPONENTS[name].config
    if not path.is_file():
        if name.startswith("tokenizer") and path.parent.is_dir():
            return {}  # CLIP's defaults are right
        raise _missing(folder, _tail(path))
    config = files.json(path)
    if not isinstance(config, dict):
        raise InputError(f"{short(path)} is damaged: it must hold an object.")
    if "quantization_config" in config or "transformers_weights" in config:
        raise InputError(f"{short(path)} asks for weights in a format that is not loaded here.")
    if COMPONENTS[name].weights:
        kind = config.get("_class_name") or (config.get("architectures") or ["?"])
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind != "?" and kind not in COMPONENTS[name].classes:
            raise InputError(
                f"The {name} of {short(folder)} is a {short(kind)}; only"
                f" {COMPONENTS[name].classes[0]} can be loaded."
            )
        folder_checks.check_numbers(config, path)
    if name == "scheduler":
        folder_checks.check_scheduler(config, path)
    return config


def _find_weights(folder: Path, name: str, files: FileReader) -> tuple[Path, ...]:
    """Return the paths of the weights files of the component `name`, several where it is sharded.

    Of several variants the full-precision one is taken, else fp16, else bf16, else the first by
    name. Raises InputError where there are only pickles, nothing, or two files of one variant.
    """
    base = re.escape(COMPONENTS[name].weights or "")
    place = folder / name
    entries = sorted(os.listdir(place)) if place.is_dir() else []
    found: dict[str, list[str]] = {}
    for entry in entries:
        match = re.fullmatch(
            rf"{base}(?:\.(\w+))?\.safetensors|{base}\.safetensors\.index(?:\.(\w+))?\.json", entry
        )
        if match:
            found.setdefault(match[1] or match[2] or "", []).append(entry)
    if not found:
        pickles = [e for e in entries if e.endswith(PICKLES)]
        if pickles:
            raise InputError(
                f"{name}/{short(pickles[0])} in {short(folder)} is a pickle, and pickled weights"
                " are not loaded, because they can run any code; convert them to safetensors."
            )
        raise _missing(folder, f"{name}/{COMPONENTS[name].weights}.safetensors")
    variant = next((v for v in ("", "fp16", "bf16") if v in found), min(found))
    if len(found[variant]) > 1:
        raise InputError(
            f"{short(place)} holds both {' and '.join(found[variant])}; remove the stale one."
        )
    file = place / found[variant][0]
    return (file,) if file.suffix == ".safetensors" else _find_shards(file, files)


def _find_shards(index: Path, files: FileReader) -> tuple[Path, ...]:
    """Return the paths of the shards that the file *.safetensors.index.json names, sorted.

    Raises InputError where the index is damaged, or a shard is missing or in another folder.
    """
    data = files.json(index)
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not names or not isinstance(data.get("metadata"), dict):
        raise InputError(f"{short(index)} is damaged: it needs a weight_map and metadata.")
    if len(names) > MAX_TENSORS:
        raise InputError(
            f"{short(index)} names {len(names):,} tensors; {MAX_TENSORS:,} are allowed."
        )
    shards = []
    for name in sorted({n if isinstance(n, str) else repr(n) for n in names.values()}):
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise InputError(
                f"{short(index)} names the shard {short(name)}, which is no .safetensors file"
                " beside it."
            )
        if not (index.parent / name).is_file():
            raise InputError(
                f"The model folder is incomplete: {_tail(index.parent / name)} is missing, which"
                f" {index.name} names."
            )
        shards.append(index.parent / name)
    return tuple(shards)


def _read_tokenizer(place: Path, files: FileReader) -> TokenizerFiles:
    """Check the files of the CLIP tokenizer in the folder `place` and return their contents.

    Raises InputError where vocab.json and merges.txt contradict each other, one of them is missing
    and there is no tokenizer.json instead, or a JSON file is damaged.
    """
    for name in ("vocab.json", "merges.txt"):
        if not (place / name).is_file():
            if (place / "tokenizer.json").is_file():
                break
            raise _missing(place.parent, _tail(place / name))
    else:
        folder_checks.check_merges(place, files)
    for entry in sorted(place.glob("*.json")):
        files.json(entry)
    return read_tokenizer_files(place, files)


def read_tokenizer_files(place: Path, files: FileReader) -> TokenizerFiles:
    """Read a CLIP tokenizer's files that exist in the folder `place`, without checking them.

    They are those that TOKENIZER_FILES names: vocab.json, merges.txt, tokenizer.json, ...
    """
    there = (name for name in TOKENIZER_FILES if (place / name).is_file())
    return TokenizerFiles(place, {name: files.content(place / name) for name in there})


def _allowed_roots(folder: Path) -> tuple[Path, ...]:
    """Return the folders that symbolic links in the model folder `folder` may point into.

    That is `folder` itself. A snapshot in the Hugging Face cache consists of links, so there it is
    the model's cache folder and the folder `blobs` that all models of the cache share.
    """
    for place in (Path(os.path.abspath(folder)), Path(os.path.realpath(folder))):
        parts = place.parts
        for i in range(len(parts) - 2, 0, -1):
            if parts[i] == "snapshots" and parts[i - 1].startswith("models--"):
                model = Path(os.path.realpath(Path(*parts[:i])))
                return model, model.parent / "blobs"
    return (Path(os.path.realpath(folder)),)


def check_links(folder: Path, place: Path) -> None:
    """Raise InputError where the component folder `place` of the model folder `folder` is unsafe.

    It is unsafe to read where it, or a file or folder directly in it, is a link out of the model
    folder (in the Hugging Face cache: out of the model's cache), cannot be read, or is something
    else than a file or folder, such as a pipe.
    """
    roots = _allowed_roots(folder)
    if os.path.lexists(place):
        _check_inside(roots, place)
    try:
        entries = sorted(place.iterdir()) if place.is_dir() else []
    except OSError as error:
        raise InputError(f"{short(place)} cannot be read: {reason_of(error)}.") from None
    for entry in entries:
        _check_inside(roots, entry)


def _check_inside(roots: tuple[Path, ...], path: Path) -> None:
    """Raise InputError where `path` is a link out of the model folder, or no file or folder.

    roots: the folders into which links may lead; `path` must lie in one of them.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        mode = os.stat(real).st_mode
    except OSError as error:
        raise InputError(f"{short(path)} cannot be read: {reason_of(error)}.") from None
    if not any(real.is_relative_to(root) for root in roots):
        raise InputError(f"{short(path)} is a link that leads out of the model folder.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{short(path)} is neither a file nor a folder.")


def _missing(folder: Path, what: str) -> InputError:
    return InputError(f"The model folder {short(folder)} is incomplete: {what} is missing.")


def _tail(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
