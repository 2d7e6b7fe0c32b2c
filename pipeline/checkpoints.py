"""What a model's name may mean, and how its files become Models.

A name is an embedded model (a folder in pipeline/models or ./models), a path to a folder in
diffusers' format, or a hub id "owner/name". Every file passes preflight.py before a loader sees it,
and the tensors' names and shapes are held against the configuration, so that nothing is ever
initialised at random.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import preflight
from .errors import InputError, closest
from .preflight import short
from .quiet import quiet

if TYPE_CHECKING:
    import torch

    from .backends import Backends
    from .engine import Result, Step
    from .inside import Preview
    from .options import GenerateOptions

EMBEDDED = Path(__file__).parent / "models"
# Measured on two cores with the embedded model: bf16 is 1.2 times as fast as fp32 but moves the
# latents by 0.004; channels-last is no faster.
AUTO_DTYPE = {"cpu": "fp32", "cuda": "fp16", "mps": "fp32"}
VAE_DTYPE = "fp32"  # fp16 overflows in some autoencoders, and decoding is one call of many
CHANNELS_LAST = {"cpu": False, "cuda": False, "mps": False}  # the memory format of UNet and VAE
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
DEVICES = ("auto", "cpu", "cuda", "mps")
DEFAULTS = ("sampler", "schedule", "steps", "cfg", "width", "height")
HUB_FILES = [
    *("model_index.json", "generation.json", "vocabulary.json", "scheduler/*.json"),
    *("tokenizer/*.json", "tokenizer/*.txt", "unet/config.json", "vae/config.json"),
    "text_encoder/config.json",
]
HUB_WEIGHTS = ("unet", "vae", "text_encoder")
# transformers and diffusers change global state while they build a model.
_LOADING = threading.Lock()


@dataclass
class Models:
    """A loaded model: its parts, what it is called, where it runs, and its own defaults."""

    name: str
    path: Path
    hash: str  # first 10 hex digits of the SHA-256 of the UNet's files
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict
    defaults: dict  # sampler, schedule, steps, cfg, width, height
    vocabulary: list[dict] | None  # what it knows: [{"emoji", "en", "zh"}], where it says so
    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    backends: Backends
    preview: Preview
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def attention(self) -> str:
        """The attention backend that runs where a request asks for none."""
        return self.backends.start().attention

    @property
    def group_norm(self) -> str:
        """The GroupNorm backend that runs where a request asks for none."""
        return self.backends.start().group_norm

    def resolve(self, options: GenerateOptions) -> GenerateOptions:
        """`options` with every None filled: the model's defaults, and a random seed."""
        from .options import MAX_SEED, GenerateOptions
        from .samplers import check_pair

        given = {k: v for k, v in options.model_dump().items() if v is not None}
        filled = self.defaults | given
        if "schedule" not in given and check_pair(filled["sampler"], filled["schedule"]):
            filled["schedule"] = "automatic"
        if "seed" not in given:
            filled["seed"] = secrets.randbelow(MAX_SEED + 2 - filled["count"])
        return GenerateOptions(**filled)

    def stream(self, options: GenerateOptions, *, words: bool = False) -> Iterator[Step | Result]:
        """Step events, then the Result. Closing the iterator stops the work. See engine.stream."""
        from . import engine

        return engine.stream(self, options, words=words)

    def generate(self, options: GenerateOptions | None = None, **fields: Any) -> Result:
        """The Result for `options`, or for the fields of GenerateOptions given by name."""
        from .options import GenerateOptions

        if options is not None and fields:
            options = GenerateOptions(**(options.model_dump() | fields))

        *_, result = self.stream(options or GenerateOptions(**fields))
        return result


def load(
    name: str | os.PathLike = "emoji",
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    group_norm: str = "auto",
) -> Models:
    """The model `name` on `device`; InputError in one sentence for whatever is wrong with it.

    device: auto, cpu, cuda, cuda:N, mps. dtype: auto, fp32, fp16, bf16, of the UNet and the text
    encoder; the autoencoder stays in fp32. attention, group_norm: names of backends.py.
    """
    place = find(name)
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    folder = place if place is not None else download(str(name))
    called = str(name) if place is None else Path(os.path.abspath(folder)).name
    preflight.check_folder(folder)
    vocabulary = read_vocabulary(folder)
    defaults = read_defaults(folder)
    with _LOADING, quiet():
        import torch

        from . import backends

        for kind, wanted in (("attention", attention), ("group_norm", group_norm)):
            backends.choose(kind, wanted, torch_device, torch_dtype)  # refused before loading
        vae_dtype = getattr(torch, DTYPES[VAE_DTYPE])
        parts = {
            "unet": _load_part(folder, "unet", torch_dtype),
            "vae": _load_part(folder, "vae", vae_dtype),
            "text_encoder": _load_part(folder, "text_encoder", torch_dtype),
        }
        tokenizer = _load_tokenizer(folder, parts["text_encoder"])
        try:
            for part in parts.values():
                part.eval().requires_grad_(False).to(torch_device)
            if CHANNELS_LAST[torch_device.type]:
                for part in (parts["unet"], parts["vae"]):
                    part.to(memory_format=torch.channels_last)
            used = backends.Backends(
                parts["unet"], parts["vae"], torch_device, torch_dtype, attention, group_norm
            )
            preview = used.start().call(lambda: _try_out(folder, tokenizer, **parts))
        except torch.OutOfMemoryError:
            raise InputError(
                f"{called} does not fit into the free memory of {torch_device}; free some, or load"
                " it with device cpu."
            ) from None
        return Models(
            name=called,
            path=folder,
            hash=_hash(preflight.find_weights(folder, "unet").files),
            **parts,
            tokenizer=tokenizer,
            scheduler_config=preflight.read_config(folder, "scheduler"),
            defaults=defaults,
            vocabulary=vocabulary,
            device=torch_device,
            dtype=torch_dtype,
            vae_dtype=vae_dtype,
            backends=used,
            preview=preview,
        )


def available() -> list[tuple[str, Path, str]]:
    """(name, folder, "ok" or why not) of each model in pipeline/models and ./models."""
    rows = {}
    for place in (EMBEDDED, Path("models")):
        for folder in sorted(place.iterdir()) if place.is_dir() else []:
            if not folder.is_dir() or folder.name.startswith((".", "_")) or folder.name in rows:
                continue
            try:
                preflight.check_folder(folder)
                reason = "ok"
            except InputError as error:
                reason = str(error)
            rows[folder.name] = (folder.name, folder, reason)
    return list(rows.values())


def find(name: str | os.PathLike) -> Path | None:
    """The folder that `name` means; None for a hub id, which is to be downloaded."""
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"A model is a name, a folder or a hub id, not {short(repr(name))}.")
    if len(text) > 1000 or not text.isprintable():
        raise InputError(f"{short(text)} is no name of a model: it is too long or not printable.")
    if re.match(r"[\\/]{2}", text):
        raise InputError(
            f"{short(text)} is a network path; copy the model to a local folder first."
        )
    if re.fullmatch(r"\w[\w.-]*", text):
        for place in (EMBEDDED, Path("models")):
            if (place / text).is_dir():
                return place / text
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        return path
    if path.suffix.lower() in (*preflight.PICKLES, ".safetensors"):
        raise InputError(_single_file(path))
    if path.is_file():
        raise InputError(f"{short(text)} is a file; a model is a folder in diffusers' format.")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.ASCII):
        return None
    if re.search(r"[\\/]", text) or text.startswith((".", "~")):
        raise InputError(f"There is no model folder {short(text)}.")
    names = [row[0] for row in available()]
    there = f"there is {closest(text, names)}" if names else "none is here"
    raise InputError(
        f"There is no model {short(repr(text))}; {there}, or give a folder or a hub id owner/name."
    )


def _single_file(path: Path) -> str:
    if not path.is_file():
        return f"There is no file {short(path)}."
    if path.suffix.lower() != ".safetensors":
        return (
            f"{short(path)} is a pickle, and pickled weights are not loaded, because they can run"
            " any code; convert it to a diffusers folder with safetensors."
        )
    preflight.check_safetensors(path)
    return (
        f"{short(path)} is a single file, which can be loaded in a later version; give a folder in"
        " diffusers' format."
    )


def download(name: str) -> Path:
    """The local copy of the hub model "owner/name": JSON, text, one set of safetensors."""
    with quiet():
        from huggingface_hub import HfApi, errors, snapshot_download

        endpoint = os.environ.get("HF_ENDPOINT")
        try:
            files = [s.rfilename for s in HfApi(endpoint=endpoint).model_info(name).siblings or ()]
            if "model_index.json" not in files:
                raise InputError(
                    f"{name} on the hub is no model in diffusers' format: it has no"
                    " model_index.json."
                )
            # The index first: nobody waits for the gigabytes of another architecture.
            first = snapshot_download(name, allow_patterns=["model_index.json"], endpoint=endpoint)
            preflight.check_index(first)
            wanted = HUB_FILES + _hub_weights(files)
            return Path(snapshot_download(name, allow_patterns=wanted, endpoint=endpoint))
        except InputError:
            raise
        except errors.GatedRepoError:
            reason = f"{name} asks for its licence to be accepted on the hub, and for a login."
        except (errors.RepositoryNotFoundError, errors.HFValidationError):
            reason = f"There is no folder {name}, and no model of that name on the hub."
        except Exception as error:  # the network fails in many ways
            with contextlib.suppress(Exception):
                local = snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True)
                return Path(local)
            detail = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = (
                f"There is no folder {name}, and the hub's model of that name cannot be fetched:"
                f" {short(detail)}"
            )
    raise InputError(reason)


def _hub_weights(files: list[str]) -> list[str]:
    """Of the weights a hub model offers those to download: plain ones, else the fp16, else all."""
    wanted = []
    for part in HUB_WEIGHTS:
        base = f"{part}/{preflight.COMPONENTS[part].weights}"
        plain = re.compile(rf"{base}(-\d+-of-\d+)?\.safetensors|{base}\.safetensors\.index\.json")
        half = re.compile(
            rf"{base}\.fp16(-\d+-of-\d+)?\.safetensors|{base}\.safetensors\.index\.fp16\.json"
        )
        for pattern in (plain, half):
            chosen = [f for f in files if pattern.fullmatch(f)]
            if chosen:
                break
        wanted += chosen or [f"{part}/*.safetensors", f"{part}/*.index.*json"]
    return wanted


def choose_device(name: str) -> torch.device:
    """The device `name` (auto, cpu, cuda, cuda:N, mps) means here."""
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    match = re.fullmatch(r"(cpu|mps|cuda(?::(\d{1,3}))?)", name) if isinstance(name, str) else None
    if not match:
        raise InputError(
            f"There is no device {short(repr(name))}; there is {closest(str(name)[:100], DEVICES)}."
        )
    kind = name.split(":")[0]
    if not there[kind]:
        found = ", ".join(k for k, is_there in there.items() if is_there)
        raise InputError(f"There is no {kind} device on this machine; there is {found}.")
    if match[2] and int(match[2]) >= torch.cuda.device_count():
        raise InputError(f"There is no {name}; this machine has {torch.cuda.device_count()} GPUs.")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of UNet and text encoder that `name` (auto, fp32, fp16, bf16) means on `device`."""
    import torch

    if name == "auto":
        name = AUTO_DTYPE[device.type]
    if not isinstance(name, str) or name not in DTYPES:
        raise InputError(
            f"There is no dtype {short(repr(name))}; there is"
            f" {closest(str(name)[:100], ['auto', *DTYPES])}."
        )
    if name == "fp16" and device.type == "cpu":
        raise InputError("fp16 is slow and inexact on a CPU; use dtype fp32 or bf16.")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise InputError("This GPU does not compute in bf16; use dtype fp16 or fp32.")
    return getattr(torch, DTYPES[name])


def read_defaults(folder: Path) -> dict:
    """DEFAULTS as generation.json has them, else as the architecture is known for."""
    from .options import GenerateOptions
    from .samplers import check_pair

    unet, vae = preflight.read_config(folder, "unet"), preflight.read_config(folder, "vae")
    words = unet.get("cross_attention_dim", 1280)
    if words == 768:
        side = 512
    elif words == 1024:
        scheduler = preflight.read_config(folder, "scheduler")
        side = 768 if scheduler.get("prediction_type") == "v_prediction" else 512
    else:
        latents = unet.get("sample_size") or 64
        latents = min(latents) if isinstance(latents, list) else latents
        side = int(latents) * 2 ** (len(vae.get("block_out_channels", [0])) - 1)
        side = min(max(side // 8 * 8, 64), 2048)
    defaults = dict(zip(DEFAULTS, ("euler_a", "automatic", 20, 7.0, side, side), strict=True))
    path = folder / "generation.json"
    if not path.exists():
        return defaults
    own = preflight.read_json(path)
    if not isinstance(own, dict) or not set(own) <= set(DEFAULTS):
        raise InputError(f"{short(path)} must hold an object of {', '.join(DEFAULTS)}.")
    try:
        own = {k: v for k, v in GenerateOptions(**own).model_dump().items() if k in own}
        defaults |= {k: v for k, v in own.items() if v is not None}
        if "schedule" not in own and check_pair(defaults["sampler"], defaults["schedule"]):
            defaults["schedule"] = "automatic"
        GenerateOptions(**defaults)
    except InputError as error:
        raise InputError(f"{short(path)}: {error}") from None
    return defaults


def read_vocabulary(folder: Path) -> list[dict] | None:
    """vocabulary.json, [{"emoji", "en", "zh", ...}] of short texts; None where there is none."""
    path = folder / "vocabulary.json"
    if not path.exists():
        return None
    rows = preflight.read_json(path)
    if not isinstance(rows, list) or len(rows) > 100_000:
        raise InputError(f"{short(path)} must be a list of what the model knows.")
    for row in rows:
        if not isinstance(row, dict) or not {"emoji", "en", "zh"} <= row.keys():
            raise InputError(f"{short(path)}: {short(row)} must have emoji, en and zh.")
        if not all(isinstance(row[k], str) and len(row[k]) <= 200 for k in ("emoji", "en", "zh")):
            raise InputError(f"{short(path)}: the emoji, en and zh of {short(row)} must be texts.")
    return rows


def _load_part(folder: Path, name: str, dtype: torch.dtype):
    """UNet, autoencoder or text encoder on the CPU, every tensor from the files."""
    if name == "text_encoder":
        from transformers import CLIPTextConfig as Config
        from transformers import CLIPTextModel as Model
    else:
        import diffusers

        Config, Model = None, getattr(diffusers, preflight.COMPONENTS[name].classes[0])
    place = folder / name
    weights = preflight.find_weights(folder, name)
    options: dict = {"variant": weights.variant, "output_loading_info": True}
    options |= {"use_safetensors": True, "local_files_only": True}
    options["dtype" if Config else "torch_dtype"] = dtype
    try:
        _check_tensors(place, name, Config, Model, weights)
        model, report = Model.from_pretrained(str(place), **options)
    except InputError:
        raise
    except Exception as error:  # a configuration has more ways to be wrong than can be listed
        raise InputError(
            f"{short(place)} cannot be loaded: {short(str(error).strip() or repr(error))}"
        ) from None
    lost = [*report["missing_keys"], *report["mismatched_keys"]]
    if lost:
        raise InputError(_incomplete(place, sorted(map(str, lost))))
    return model


def _check_tensors(place: Path, name: str, Config, Model, weights: preflight.Weights) -> None:
    """Every tensor that the configuration asks for must be in the files, in its shape."""
    import torch

    with torch.device("meta"):
        config = preflight.read_config(place.parent, name)
        model = Model(Config.from_dict(config)) if Config else Model.from_config(config)
    there = {}
    for file in weights.files:
        for key, info in preflight.safetensors_header(file).items():
            there[_modern(name, key)] = tuple(info["shape"])
    asked = {_modern(name, key): tuple(t.shape) for key, t in model.state_dict().items()}
    lost = [key for key in asked if key not in there]
    if lost:
        raise InputError(_incomplete(place, lost))
    for key, shape in asked.items():
        if there[key] != shape:
            raise InputError(
                f"{short(place)} is damaged: tensor {short(key)} has the shape {short(there[key])},"
                f" its config.json asks for {shape}."
            )


def _modern(name: str, key: str) -> str:
    """A tensor's name as today's classes have it; older files have older names."""
    if name == "text_encoder":
        return key.removeprefix("text_model.")
    if name == "vae":
        old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
        return re.sub(
            r"(attentions\.\d+\.)(query|key|value|proj_attn)\b", lambda m: m[1] + old[m[2]], key
        )
    return key


def _incomplete(place: Path, lost: list[str]) -> str:
    more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
    verb = "are" if more else "is"
    return f"The weights in {short(place)} are incomplete: {short(lost[0])}{more} {verb} missing."


def _load_tokenizer(folder: Path, text_encoder):
    """The tokenizer; each number it can give must have a row in the text encoder."""
    from transformers import CLIPTokenizer

    place = folder / "tokenizer"
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(place), local_files_only=True)
        rows, highest = text_encoder.config.vocab_size, max(tokenizer.get_vocab().values())
        window = text_encoder.config.max_position_embeddings
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), window)
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    except Exception as error:
        raise InputError(
            f"{short(place)} cannot be loaded: {short(str(error).strip() or repr(error))}"
        ) from None
    if highest >= rows:
        raise InputError(
            f"{short(place)} does not go with the text encoder: it numbers tokens up to"
            f" {highest:,}, the encoder knows {rows:,}."
        )
    if None in ends:
        raise InputError(f"{short(place)} names no start or no end token.")
    return tokenizer


def _try_out(folder: Path, tokenizer, text_encoder, unet, vae) -> Preview:
    """One small run of every part, so that what cannot work fails here; returns the preview map."""
    import torch

    from . import prompt
    from .backends import KernelFailed
    from .inside import Preview

    try:
        words, _ = prompt.encode(tokenizer, text_encoder, "", "")  # (1, K, E)
        latents = torch.zeros((1, unet.config.in_channels, 8, 8), device=unet.device)
        with torch.no_grad():
            output = unet(
                latents.to(unet.dtype), 500, encoder_hidden_states=words.to(unet.dtype)
            ).sample
        if output.shape != latents.shape or not torch.isfinite(output).all():
            raise InputError(
                f"The UNet of {short(folder)} does not work in {str(unet.dtype)[6:]}: its output is"
                " not finite or has another shape than the latents."
            )
        return Preview.fit(vae)
    except (InputError, KernelFailed, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = short(str(error).strip() or repr(error))
        raise InputError(f"{short(folder)} was loaded but does not run: {reason}") from None


def _hash(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:10]
