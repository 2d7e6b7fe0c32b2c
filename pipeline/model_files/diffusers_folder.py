"""Check a model folder in diffusers' format before any loader opens it.

Model files come from strangers. Whatever a loader would answer with a traceback, a crash or by
running the file's code is found here and becomes an InputError of one sentence. Only JSON files
and headers are read, so it takes milliseconds for gigabytes; nothing here imports torch.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, reason_of, short
from .json_file import MAX_JSON, are_sizes, read_json
from .safetensors_header import MAX_TENSORS, PICKLES, read_header

MAX_NUMBER = 1_000_000  # of a config.json: no size or count of a real model is larger
MAX_LAYERS = 128


@dataclass(frozen=True)
class Component:
    """One part of a model folder: its class, and for those with weights their files' first name."""

    classes: tuple[str, ...]
    config: str
    weights: str | None = None


COMPONENTS = {
    "unet": Component(("UNet2DConditionModel",), "config.json", "diffusion_pytorch_model"),
    "vae": Component(("AutoencoderKL",), "config.json", "diffusion_pytorch_model"),
    "text_encoder": Component(("CLIPTextModel",), "config.json", "model"),
    "tokenizer": Component(("CLIPTokenizer", "CLIPTokenizerFast"), "tokenizer_config.json"),
    "scheduler": Component((), "scheduler_config.json"),
    "text_encoder_2": Component(("CLIPTextModelWithProjection",), "config.json", "model"),
    "tokenizer_2": Component(("CLIPTokenizer", "CLIPTokenizerFast"), "tokenizer_config.json"),
}
PLAIN = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
EXTRAS = ("generation.json", "vocabulary.json")
READS = {  # diffusers' pipeline: the components that it has
    "StableDiffusionPipeline": PLAIN,
    "StableDiffusionImg2ImgPipeline": PLAIN,
    "StableDiffusionInpaintPipeline": PLAIN,
    "StableDiffusionXLPipeline": tuple(COMPONENTS),
    "StableDiffusionXLImg2ImgPipeline": tuple(COMPONENTS),
    "StableDiffusionXLInpaintPipeline": tuple(COMPONENTS),
}
SCHEDULER = {  # field: the values that the samplers understand
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
}


@dataclass(frozen=True)
class Weights:
    """The safetensors files of a component, in order, and diffusers' name for their variant."""

    files: tuple[Path, ...]
    variant: str | None


def check_folder(path: str | os.PathLike) -> None:
    """Pass a diffusers folder of Stable Diffusion 1.x, 2.x or XL; InputError says what is wrong."""
    folder = Path(path)
    for name in check_index(folder):
        check_component(folder, name)
    _check_fit(folder)


def check_component(folder: Path, name: str) -> None:
    """Pass the component `name` of a model folder by itself."""
    _check_links(folder, folder / name)
    read_config(folder, name)
    if COMPONENTS[name].weights:
        for file in find_weights(folder, name).files:
            read_header(file)
    if name.startswith("tokenizer"):
        _check_tokenizer(folder / name)


def components(folder: Path) -> tuple[str, ...]:
    """The components of a folder that `check_index` has passed."""
    return READS[read_json(folder / "model_index.json")["_class_name"]]


def check_index(path: str | os.PathLike) -> tuple[str, ...]:
    """The components of a folder whose model_index.json describes a model that is read here."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"There is no model folder {short(folder)}.")
    if not os.path.lexists(folder / "model_index.json"):
        raise InputError(
            f"{short(folder)} is no model folder in diffusers' format: it has no model_index.json."
        )
    for name in ("model_index.json", *EXTRAS):
        if os.path.lexists(folder / name):
            _check_inside(_roots(folder), folder / name)
    index = read_json(folder / "model_index.json")
    if not isinstance(index, dict):
        raise InputError(f"{short(folder / 'model_index.json')} must hold an object.")
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in READS:
        raise InputError(
            f"{short(folder)} is a {short(kind)}, which is another architecture; this version"
            " loads Stable Diffusion 1.x, 2.x (StableDiffusionPipeline) and XL"
            " (StableDiffusionXLPipeline)."
        )
    for name in READS[kind]:
        component, entry = COMPONENTS[name], index.get(name)
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
            raise InputError(f"model_index.json of {short(folder)} names no {name}.")
        if component.classes and entry[1] not in component.classes:
            raise InputError(
                f"The {name} of {short(folder)} is a {short(entry[1])}; only"
                f" {component.classes[0]} can be loaded."
            )
    return READS[kind]


def read_config(folder: Path, name: str) -> dict:
    """The configuration of the component `name`, its numbers within reason."""
    path = folder / name / COMPONENTS[name].config
    if not path.is_file():
        if name.startswith("tokenizer") and path.parent.is_dir():
            return {}  # CLIP's defaults do
        raise _missing(folder, _tail(path))
    config = read_json(path)
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
        _check_numbers(config, path)
    if name == "scheduler":
        _check_scheduler(config, path)
    return config


def find_weights(folder: Path, name: str) -> Weights:
    """The weights of the component `name`: plain files, else the fp16, bf16 or other variant."""
    base = re.escape(COMPONENTS[name].weights)
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
    files = (file,) if file.suffix == ".safetensors" else _shards(file)
    return Weights(files, variant or None)


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that a sharded index names, in order of name."""
    data = read_json(index)
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


def _check_numbers(value: Any, path: Path, key: str = "") -> None:
    """No number of a configuration may be one that only an attack would hold."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, path, name)
    elif isinstance(value, list):
        if len(value) > MAX_LAYERS:
            raise InputError(f"{short(path)}: {short(key)} has {len(value):,} entries.")
        for inner in value:
            _check_numbers(inner, path, key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        limit = MAX_LAYERS if "layers" in key else MAX_NUMBER
        if not abs(value) <= limit:
            raise InputError(f"{short(path)}: {short(key)} is {short(value)}, more than {limit:,}.")


def _check_scheduler(config: dict, path: Path) -> None:
    for key, allowed in SCHEDULER.items():
        if key in config and config[key] not in allowed:
            raise InputError(
                f"{short(path)}: {key} is {short(config[key])}; it can be {', '.join(allowed)}."
            )
    steps = config.get("num_train_timesteps", 1000)
    if not are_sizes([steps]) or not 2 <= steps <= 10_000:
        raise InputError(f"{short(path)}: num_train_timesteps is {short(steps)}.")
    for key in ("beta_start", "beta_end"):
        beta = config.get(key, 0.01)
        if not isinstance(beta, (int, float)) or not 0 < beta < 1:
            raise InputError(f"{short(path)}: {key} is {short(beta)}; it lies between 0 and 1.")
    betas = config.get("trained_betas")
    if betas is not None and not (
        isinstance(betas, list)
        and len(betas) == steps
        and all(isinstance(b, float) and 0 < b < 1 for b in betas)
    ):
        raise InputError(f"{short(path)}: trained_betas must be {steps} numbers from 0 to 1.")


def _check_tokenizer(place: Path) -> None:
    """vocab.json and merges.txt, which must agree, or tokenizer.json."""
    for name in ("vocab.json", "merges.txt"):
        if not (place / name).is_file():
            if (place / "tokenizer.json").is_file():
                break
            raise _missing(place.parent, f"tokenizer/{name}")
    else:
        vocabulary = read_json(place / "vocab.json")
        if not isinstance(vocabulary, dict) or not are_sizes(list(vocabulary.values())):
            raise InputError(f"{short(place / 'vocab.json')} must map words to numbers.")
        try:
            text = (place / "merges.txt").read_bytes()[:MAX_JSON].decode("utf-8")
        except (OSError, UnicodeError):
            raise InputError(f"{short(place / 'merges.txt')} is damaged: it is not text.") from None
        for line in text.split("\n"):
            pair = line.rstrip("\r").split(" ")
            if pair == [""] or line.startswith("#version"):
                continue
            if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
                raise InputError(
                    f"{short(place / 'merges.txt')} does not go with vocab.json: see {short(line)}."
                )
    for entry in sorted(place.glob("*.json")):
        read_json(entry)


def _check_fit(folder: Path) -> None:
    """The parts must go together, and the UNet must ask for nothing but what its kind is given."""
    xl = "text_encoder_2" in components(folder)
    unet, vae, text = (read_config(folder, n) for n in ("unet", "vae", "text_encoder"))
    asks = {k: unet.get(k) for k in ("class_embed_type", "encoder_hid_dim_type")}
    # "text" pools the words that every UNet gets; it asks for nothing more.
    wanted = ("text_time",) if xl else (None, "text")
    if unet.get("addition_embed_type") not in wanted:
        asks["addition_embed_type"] = unet.get("addition_embed_type")
    for key, value in asks.items():
        if value is not None or key == "addition_embed_type":
            kind = "Stable Diffusion XL has not" if xl else "Stable Diffusion 1.x and 2.x do not"
            raise InputError(
                f"The UNet of {short(folder)} is of another architecture: it has"
                f" {key} {short(value)}, which {kind}."
            )
    if unet.get("num_class_embeds") is not None:
        raise InputError(f"The UNet of {short(folder)} asks for classes; this version has none.")
    for name, config in (("unet", unet), ("vae", vae)):
        blocks, side = config.get("block_out_channels", [64]), config.get("sample_size") or 64
        if not are_sizes(blocks) or not 1 <= len(blocks) <= 8:
            raise InputError(f"{short(folder / name)}: block_out_channels is {short(blocks)}.")
        if not are_sizes(side if isinstance(side, list) else [side]):
            raise InputError(f"{short(folder / name)}: sample_size is {short(side)}.")
    scale = vae.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or scale <= 0:
        raise InputError(f"{short(folder / 'vae')}: scaling_factor is {short(scale)}.")
    latents = vae.get("latent_channels", 4)
    masked = 2 * latents + 1 if isinstance(latents, int) else None  # an inpainting UNet sees more
    for key, fit in (("in_channels", (latents, masked)), ("out_channels", (latents,))):
        if unet.get(key, 4) not in fit:
            raise InputError(
                f"The UNet of {short(folder)} has {key} {short(unet.get(key, 4))} and its"
                f" autoencoder {short(latents)} latent channels; only a UNet for text to image or"
                " for inpainting can be loaded."
            )
    width, words = unet.get("cross_attention_dim", 1280), text.get("hidden_size", 512)
    if xl:
        second = read_config(folder, "text_encoder_2")
        if are_sizes([words, second.get("hidden_size", 512)]):
            words += second.get("hidden_size", 512)
        # pooled words and six sizes, each embedded
        pooled, sizes = second.get("projection_dim", 512), unet.get("addition_time_embed_dim")
        room = unet.get("projection_class_embeddings_input_dim")
        if not are_sizes([pooled, sizes, room]) or room != pooled + 6 * sizes:
            raise InputError(
                f"The UNet of {short(folder)} takes {short(room)} numbers beside time and words;"
                f" its second text encoder's {short(pooled)} and 6 sizes of {short(sizes)} do not"
                " fit."
            )
    if width != words:
        encoders = "encoders give" if xl else "encoder gives"
        raise InputError(
            f"The UNet of {short(folder)} listens to words of size {short(width)}, its text"
            f" {encoders} {short(words)}."
        )


def _roots(folder: Path) -> tuple[Path, ...]:
    """Where links may lead: into the folder itself.

    The files of a snapshot in the hub's cache are links to that model's blobs, or to the blobs
    that all models of the cache share.
    """
    for place in (Path(os.path.abspath(folder)), Path(os.path.realpath(folder))):
        parts = place.parts
        for i in range(len(parts) - 2, 0, -1):
            if parts[i] == "snapshots" and parts[i - 1].startswith("models--"):
                model = Path(os.path.realpath(Path(*parts[:i])))
                return model, model.parent / "blobs"
    return (Path(os.path.realpath(folder)),)


def _check_links(folder: Path, place: Path) -> None:
    """Nothing in the component's folder may be a link that leads out of the model, or no file."""
    roots = _roots(folder)
    if os.path.lexists(place):
        _check_inside(roots, place)
    try:
        entries = sorted(place.iterdir()) if place.is_dir() else []
    except OSError as error:
        raise InputError(f"{short(place)} cannot be read: {reason_of(error)}.") from None
    for entry in entries:
        _check_inside(roots, entry)


def _check_inside(roots: tuple[Path, ...], path: Path) -> None:
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
