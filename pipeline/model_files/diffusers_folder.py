"""Looks at a model's files before any loader does; imports no torch, unpickles nothing.

A model comes from strangers. What a loader would answer with a traceback, a crash or by running the
file's own code is found here first and becomes an InputError of one sentence. Only headers are
read, so it takes milliseconds for gigabytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

MAX_JSON = 16_000_000  # bytes; the largest honest one, SD's tokenizer.json, has 4 MB
MAX_HEADER = 25_000_000  # bytes; the format allows 100 MB, an SDXL checkpoint has 0.4 MB
MAX_TENSORS = 100_000
MAX_PARTS = {  # of a header, by the character that each of them costs
    b"{": ("objects", 2 * MAX_TENSORS),
    b"[": ("lists", 4 * MAX_TENSORS),
    b",": ("values", 20 * MAX_TENSORS),
}
MAX_NUMBER = 1_000_000  # of a config.json: no size or count of a real model is larger
MAX_LAYERS = 128
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MAGIC = {  # first bytes of what people rename to .safetensors
    b"PK\x03\x04": "a zip archive of pickles, as torch.save writes it, and is not loaded",
    b"\x80\x02": "a pickle, which is not loaded",
    b"\x80\x03": "a pickle, which is not loaded",
    b"\x80\x04": "a pickle, which is not loaded",
    b"\x80\x05": "a pickle, which is not loaded",
    b"version https://git-lfs": "a Git LFS pointer, not the weights (git lfs pull fetches them)",
    b"GGUF": "a GGUF file, which this version does not read",
    b"\x89HDF": "an HDF5 file, which this version does not read",
    b"<": "a web page, not weights",
}


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
            check_safetensors(file)
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


def check_safetensors(path: str | os.PathLike) -> None:
    """Pass a whole, well-formed safetensors file."""
    safetensors_header(path)


def safetensors_header(path: str | os.PathLike) -> dict[str, dict]:
    """Name to {"dtype", "shape", "data_offsets"} of each tensor; the file is checked on the way."""
    return safetensors(path)[0]


def safetensors(path: str | os.PathLike) -> tuple[dict[str, dict], dict[str, str]]:
    """The tensors as `safetensors_header` has them, and the file's own metadata.

    Stricter than the format (https://huggingface.co/docs/safetensors): no duplicate names, no
    unknown fields, at most 25 MB of header.
    """
    path = Path(path)
    shown = short(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{shown} is no file.")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(32)
            if head[8:9] != b"{":
                _say_what_it_is(shown, head)
            (length,) = struct.unpack("<Q", head[:8])
            if length > size - 8:
                raise InputError(
                    f"{shown} is truncated: a header of {length:,} bytes in a file of {size:,}."
                )
            if length > MAX_HEADER:
                raise InputError(
                    f"{shown} has a header of {length:,} bytes; at most {MAX_HEADER:,} are read."
                )
            file.seek(8)
            raw = file.read(length)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown} cannot be read: {_reason(error)}.") from None
    for mark, (parts, most) in MAX_PARTS.items():  # before Python makes objects of them
        if raw.count(mark) > most:
            raise InputError(
                f"The header of {shown} is damaged: it holds {raw.count(mark):,} {parts}, more than"
                f" {MAX_TENSORS:,} tensors need."
            )
    header = _parse(raw, shown, "The header of ")
    if not isinstance(header, dict):
        raise InputError(f"The header of {shown} is damaged: it must be an object.")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(
            f"The header of {shown} is damaged: its __metadata__ must map text to text."
        )
    if len(header) > MAX_TENSORS:
        raise InputError(f"{shown} names {len(header):,} tensors; {MAX_TENSORS:,} are allowed.")
    _check_layout(header, size - 8 - length, shown)
    return header, metadata


def _check_layout(header: dict, size: int, shown: str) -> None:
    """Each tensor's bytes must fit its shape, and all must cover the `size` bytes without a gap."""
    spans = []
    for name, info in header.items():
        if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
            raise InputError(f"{shown} is damaged: tensor {short(name)} is not fully described.")
        dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise InputError(f"{shown}: tensor {short(name)} has the unknown type {short(dtype)}.")
        if not _sizes(shape) or len(shape) > 16 or math.prod(d or 1 for d in shape) >= 2**60:
            raise InputError(f"{shown}: tensor {short(name)} has the shape {short(shape)}.")
        if not _sizes(offsets) or len(offsets) != 2:
            raise InputError(f"{shown}: tensor {short(name)} has the offsets {short(offsets)}.")
        if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
            raise InputError(
                f"{shown} is damaged: tensor {short(name)} has {offsets[1] - offsets[0]:,} bytes,"
                f" its shape needs {math.prod(shape) * ITEM_BYTES[dtype]:,}."
            )
        spans.append((*offsets, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            fault = "overlaps the one before it" if start < end else "leaves a hole before it"
            raise InputError(f"{shown} is damaged: tensor {short(name)} {fault}.")
        end = stop
    if end > size:
        raise InputError(
            f"{shown} is truncated: it needs {end:,} bytes of weights and has {size:,}."
        )
    if end < size:
        raise InputError(f"{shown} is damaged: {size - end:,} bytes follow its last tensor.")


def _say_what_it_is(shown: str, head: bytes) -> None:
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"{shown} is {what}.")
    if len(head) < 10:
        raise InputError(f"{shown} is truncated: it has {len(head)} bytes.")
    raise InputError(f"{shown} is no safetensors file: its header does not start with an object.")


def read_json(path: Path) -> Any:
    """A JSON file of at most 16 MB, without duplicate keys, NaN or endless nesting."""
    shown = short(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{shown} is no file.")
        if os.stat(path).st_size > MAX_JSON:
            raise InputError(f"{shown} is too large; at most {MAX_JSON:,} bytes are read.")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {_reason(error)}.") from None
    return _parse(raw, shown, "")


def _parse(raw: bytes, shown: str, of: str) -> Any:
    def no_twins(pairs: list[tuple[str, Any]]) -> dict:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise ValueError("a name stands in it twice")
        for text in (*keys, *keys.values()):
            if isinstance(text, str):
                text.encode()  # half a surrogate pair is no text
        return keys

    def whole(digits: str) -> int:
        if digits == "-0":  # a float to other readers
            raise ValueError("-0 is no whole number")
        return int(digits)

    def no_constant(name: str):
        raise ValueError(f"{name} is no number")

    try:
        text = raw.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=no_twins, parse_constant=no_constant, parse_int=whole
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeError):
            reason = "it is not UTF-8"
        elif isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        else:
            reason = _reason(error)
        raise InputError(f"{of}{shown} is damaged: {reason}.") from None


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
    if not _sizes([steps]) or not 2 <= steps <= 10_000:
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
        if not isinstance(vocabulary, dict) or not _sizes(list(vocabulary.values())):
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
        if not _sizes(blocks) or not 1 <= len(blocks) <= 8:
            raise InputError(f"{short(folder / name)}: block_out_channels is {short(blocks)}.")
        if not _sizes(side if isinstance(side, list) else [side]):
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
        if _sizes([words, second.get("hidden_size", 512)]):
            words += second.get("hidden_size", 512)
        # pooled words and six sizes, each embedded
        pooled, sizes = second.get("projection_dim", 512), unet.get("addition_time_embed_dim")
        room = unet.get("projection_class_embeddings_input_dim")
        if not _sizes([pooled, sizes, room]) or room != pooled + 6 * sizes:
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
        raise InputError(f"{short(place)} cannot be read: {_reason(error)}.") from None
    for entry in entries:
        _check_inside(roots, entry)


def _check_inside(roots: tuple[Path, ...], path: Path) -> None:
    try:
        real = Path(os.path.realpath(path, strict=True))
        mode = os.stat(real).st_mode
    except OSError as error:
        raise InputError(f"{short(path)} cannot be read: {_reason(error)}.") from None
    if not any(real.is_relative_to(root) for root in roots):
        raise InputError(f"{short(path)} is a link that leads out of the model folder.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{short(path)} is neither a file nor a folder.")


def _sizes(values: Any) -> bool:
    """A list of whole numbers, none negative, none beyond a file's size."""
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**60 for v in values
    )


def _reason(error: Exception) -> str:
    return short(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _missing(folder: Path, what: str) -> InputError:
    return InputError(f"The model folder {short(folder)} is incomplete: {what} is missing.")


def _tail(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def short(value: Any) -> str:
    """`value` as one printable line: the end of a long path, the start of anything else."""
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:
        text = "a number of thousands of digits"
    end = isinstance(value, Path)
    text = text[-121:] if end else text[:121]  # one more than is shown: a name may have megabytes
    text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) <= 120:
        return text
    return "..." + text[-117:] if end else text[:117] + "..."
