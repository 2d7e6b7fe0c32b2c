"""What a model's name may mean, and how its files become Models.

A name is an embedded model or one in ./models, a path to a folder in diffusers' format or to a
single .safetensors file, or a hub id "owner/name". Every file passes preflight.py before a loader
sees it, and the tensors' names and shapes are held against the configuration, so that nothing is
ever initialised at random.
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

from ..errors import InputError, closest
from ..model_files import diffusers_folder, library, manifest
from ..model_files.diffusers_folder import short
from .silence import quiet

if TYPE_CHECKING:
    import torch

    from ..backends import Backends
    from ..events import Result, Step
    from ..latents.preview import Preview
    from ..lora.adapters import Adapters
    from ..model_files.manifest import Source
    from ..options import GenerateOptions
    from ..prompt.encode import TextParts

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
    *("text_encoder/config.json", "text_encoder_2/config.json"),
    *("tokenizer_2/*.json", "tokenizer_2/*.txt"),
]
# transformers and diffusers change global state while they build a model.
_LOADING = threading.Lock()


class NoRoom(InputError):
    """The model does not fit into the device's free memory."""


@dataclass
class Models:
    """A loaded model: its parts, what it is called, where it runs, and its own defaults."""

    name: str
    path: Path
    family: str  # a key of recognise.FAMILIES
    what: str  # what was recognised, in words
    vae_name: str | None  # of another autoencoder than its own
    warnings: tuple[str, ...]  # sentences about what was used instead of what is missing
    hash: str  # first 10 hex digits of the SHA-256 of the file, or of the folder's UNet's files
    digests: dict[str, str]  # of each part, the SHA-256 of its files: "unet", "vae", ...
    unet: Any
    vae: Any
    text: TextParts  # tokenizers and text encoders, two of each for SD XL
    adapters: Adapters  # puts LoRAs on for a call
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
    def tokenizer(self) -> Any:
        """The (first) tokenizer."""
        return self.text.towers[0].tokenizer

    @property
    def text_encoder(self) -> Any:
        """The (first) text encoder."""
        return self.text.towers[0].model

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
        from ..options import MAX_SEED
        from ..samplers import check_pair

        fields = {k: getattr(options, k) for k in type(options).model_fields}
        given = {k: v for k, v in fields.items() if v is not None}
        filled = self.defaults | given
        if "schedule" not in given and check_pair(filled["sampler"], filled["schedule"]):
            filled["schedule"] = "automatic"
        reason = check_pair(filled["sampler"], filled["schedule"])
        if reason:
            raise InputError(reason)
        varied = ["variation_seed"] if filled["variation_strength"] else []
        for name in ("seed", *varied):
            if name not in given:
                filled[name] = secrets.randbelow(MAX_SEED + 2 - filled["count"])
        return options.model_copy(update=filled)

    def stream(self, options: GenerateOptions, *, words: bool = False) -> Iterator[Step | Result]:
        """Step events, then the Result. Closing the iterator stops the work. See engine.stream."""
        from .. import engine
        from ..metadata import receipt

        events = engine.stream(self, options, words=words)
        return receipt.signed(self, events, "generate", options)

    def generate(self, options: GenerateOptions | None = None, **fields: Any) -> Result:
        """The Result for `options`, or for the fields of GenerateOptions given by name."""
        from ..options import GenerateOptions

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
    vae: str | os.PathLike | None = None,
    low_memory: bool = False,
) -> Models:
    """The model `name` on `device`; InputError in one sentence for whatever is wrong with it.

    device: auto, cpu, cuda, cuda:N, mps. dtype: auto, fp32, fp16, bf16, of the UNet and the text
    encoders; the autoencoder stays in fp32. attention, group_norm: names of backends.py. vae: name
    or path of another autoencoder. low_memory: weights stay in main memory and visit the GPU layer
    by layer, and pictures are decoded in tiles.
    """
    place = find(name)
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    with _LOADING, quiet():
        # Not in the frame that holds the weights: a package that cannot be imported may keep the
        # frames of its failure for ever, and the first model with them.
        from .. import backends

        for kind, wanted in (("attention", attention), ("group_norm", group_norm)):
            backends.choose(kind, wanted, torch_device, torch_dtype)  # refused before loading
    return _load(name, place, torch_device, torch_dtype, attention, group_norm, vae, low_memory)


def _load(
    name, place, torch_device, torch_dtype, attention: str, group_norm: str, vae, low_memory: bool
) -> Models:
    source = manifest.open_source(place if place is not None else download(str(name)))
    vae = None if vae is None else _find_vae(vae)
    source = manifest.with_vae(source, vae)
    called = str(name) if place is None else _name(source.path)
    vocabulary = read_vocabulary(source.path)
    with _LOADING, quiet():
        import torch

        from .. import backends
        from ..lora.adapters import Adapters
        from ..prompt.encode import TextParts, Tower

        types = {"vae": getattr(torch, DTYPES[VAE_DTYPE])}
        plans = {n: manifest.plan(source, n) for n in source.parts}
        towers = []
        for encoder in (n for n in manifest.TEXT_ENCODERS if n in plans):
            tokens = encoder.replace("text_encoder", "tokenizer")
            tokenizer = _load_tokenizer(source.tokenizers[tokens], plans[encoder].model)
            towers.append(Tower(tokenizer, plans[encoder].model, torch_device))
        read_defaults(source, "epsilon")  # all is checked before the first weight is read
        parts = {n: p.fill(types.get(n, torch_dtype)) for n, p in plans.items()}
        text = TextParts(tuple(towers), source.family, source.zero_empty_negative)
        unet, autoencoder = parts["unet"], parts["vae"]
        try:
            _place(parts, torch_device, low_memory)
            used = backends.Backends(
                unet, autoencoder, torch_device, torch_dtype, attention, group_norm
            )
            run = _Trial(source, text, unet, autoencoder, torch_device, torch_dtype)
            preview, predicts = used.start().call(run)
        except torch.OutOfMemoryError:
            raise NoRoom(
                f"{called} does not fit into the free memory of {torch_device}; free some, load it"
                " with --low-memory, or with device cpu."
            ) from None
        scheduler = source.scheduler | {"prediction_type": predicts}
        if source.family == "xl":
            scheduler.setdefault("align_your_steps", "sdxl")  # which of NVIDIA's tables
        networks = {n: part for n, part in parts.items() if n != "vae"}
        files = dict.fromkeys(p.files for p in source.parts.values())  # a single file is one
        digests = {paths: _sha256(paths) for paths in files}
        return Models(
            name=called,
            path=source.path,
            family=source.family,
            what=source.what,
            vae_name=None if vae is None else _name(vae),
            warnings=source.warnings,
            hash=digests[source.hashed][:10],
            digests={n: digests[p.files] for n, p in source.parts.items()},
            unet=unet,
            vae=autoencoder,
            text=text,
            adapters=Adapters(networks, torch_device),
            scheduler_config=scheduler,
            defaults=read_defaults(source, predicts),
            vocabulary=vocabulary,
            device=torch_device,
            dtype=torch_dtype,
            vae_dtype=types["vae"],
            backends=used,
            preview=preview,
        )


def offload(parts: dict[str, Any], device: torch.device) -> None:
    """The parts' weights stay in main memory; each layer's visit `device` while it runs."""
    from accelerate import cpu_offload

    for part in parts.values():
        cpu_offload(part, device)


def _name(path: Path) -> str:
    """What a model at `path` is called."""
    path = Path(os.path.abspath(path))
    return path.name if path.is_dir() else path.stem


def _find_vae(name: str | os.PathLike) -> Path:
    """The file or folder that `name` means as an autoencoder."""
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else ""
    entry = library.named("vae").get(text)
    path = entry.path if entry else Path(os.path.expanduser(text))
    if not text or "\0" in text or len(text) > 1000 or not os.path.exists(path):
        there = closest(text[:100], library.named("vae")) or "none in the folder models"
        raise InputError(f"There is no autoencoder {short(repr(name))}; there is {there}.")
    return path


def _place(parts: dict[str, Any], device: torch.device, low_memory: bool) -> None:
    """Moves the parts to `device`, or has them visit it layer by layer."""
    import torch

    if low_memory:
        parts["vae"].enable_tiling()
        parts["vae"].enable_slicing()
        if device.type != "cpu":
            offload(parts, device)
            return
    for name, part in parts.items():
        part.to(device)
        if CHANNELS_LAST[device.type] and name in ("unet", "vae"):
            part.to(memory_format=torch.channels_last)


def find(name: str | os.PathLike) -> Path | None:
    """The folder or file that `name` means; None for a hub id, which is to be downloaded."""
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"A model is a name, a folder or a hub id, not {short(repr(name))}.")
    if len(text) > 1000 or not text.isprintable():
        raise InputError(f"{short(text)} is no name of a model: it is too long or not printable.")
    if re.match(r"[\\/]{2}", text):
        raise InputError(
            f"{short(text)} is a network path; copy the model to a local folder first."
        )
    path = Path(os.path.expanduser(text))
    if not re.search(r"[\\/]", text):
        entry = library.named("checkpoint").get(text)
        if entry is not None:
            return entry.path
    try:
        folder = path.is_dir()
    except OSError as error:
        raise InputError(f"{short(text)} cannot be read: {error.strerror}.") from None
    if folder:
        return path
    if path.suffix.lower() in (*diffusers_folder.PICKLES, ".safetensors"):
        return _single_file(path)
    if path.is_file():
        raise InputError(
            f"{short(text)} is a file of another kind; a model is a .safetensors file or a folder"
            " in diffusers' format."
        )
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.ASCII):
        return None
    if re.search(r"[\\/]", text) or text.startswith((".", "~")):
        raise InputError(f"There is no model folder {short(text)}.")
    names = list(library.named("checkpoint"))
    there = f"there is {closest(text, names)}" if names else "none is here"
    raise InputError(
        f"There is no model {short(repr(text))}; {there}, or give a folder, a .safetensors file or"
        " a hub id owner/name."
    )


def _single_file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"There is no file {short(path)}.")
    if path.suffix.lower() != ".safetensors":
        raise InputError(
            f"{short(path)} is a pickle, and pickled weights are not loaded, because they can run"
            " any code; convert it to safetensors."
        )
    return path


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
            diffusers_folder.check_index(first)
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
    for part in (n for n, component in diffusers_folder.COMPONENTS.items() if component.weights):
        base = f"{part}/{diffusers_folder.COMPONENTS[part].weights}"
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


def read_defaults(source: Source, predicts: str) -> dict:
    """DEFAULTS as generation.json has them, else as the architecture is known for."""
    from ..options import GenerateOptions
    from ..samplers import check_pair

    unet, vae = source.parts["unet"].config, source.parts["vae"].config
    words = unet.get("cross_attention_dim", 1280)
    if words == 768:
        side = 512
    elif words == 1024:
        side = 768 if predicts == "v_prediction" else 512
    else:
        latents = unet.get("sample_size") or 64
        latents = min(latents) if isinstance(latents, list) else latents
        side = int(latents) * 2 ** (len(vae.get("block_out_channels", [0])) - 1)
        side = min(max(side // 8 * 8, 64), 2048)
    defaults = dict(zip(DEFAULTS, ("euler_a", "automatic", 20, 7.0, side, side), strict=True))
    path = source.path / "generation.json"
    if source.path.is_file() or not path.exists():
        return defaults
    own = diffusers_folder.read_json(path)
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
    if folder.is_file() or not path.exists():
        return None
    rows = diffusers_folder.read_json(path)
    if not isinstance(rows, list) or len(rows) > 100_000:
        raise InputError(f"{short(path)} must be a list of what the model knows.")
    for row in rows:
        if not isinstance(row, dict) or not {"emoji", "en", "zh"} <= row.keys():
            raise InputError(f"{short(path)}: {short(row)} must have emoji, en and zh.")
        if not all(isinstance(row[k], str) and len(row[k]) <= 200 for k in ("emoji", "en", "zh")):
            raise InputError(f"{short(path)}: the emoji, en and zh of {short(row)} must be texts.")
    return rows


def _load_tokenizer(place: Path, text_encoder):
    """The tokenizer; each number it can give must have a row in the text encoder."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(place), local_files_only=True)
        rows, highest = text_encoder.config.vocab_size, max(tokenizer.get_vocab().values())
        window = text_encoder.config.max_position_embeddings
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), window)
        if place == manifest.CLIP and text_encoder.config.hidden_act == "gelu":
            tokenizer.pad_token = "!"  # OpenCLIP fills up with the number 0
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


@dataclass
class _Trial:
    """One small run of every part, so that what cannot work fails while it is loaded.

    Called, it returns the preview map and what the UNet predicts.
    """

    source: Source
    text: TextParts
    unet: Any
    vae: Any
    device: torch.device
    dtype: torch.dtype

    def __call__(self) -> tuple[Preview, str]:
        import torch

        from ..backends import KernelFailed
        from ..latents.preview import Preview

        place = short(self.source.path)
        try:
            latents = torch.zeros((1, self.unet.config.in_channels, 8, 8))
            output = self._ask(latents, 500)
            if (
                output.shape != latents[:, : self.vae.config.latent_channels].shape
                or not torch.isfinite(output).all()
            ):
                raise InputError(
                    f"The UNet of {place} does not work in {str(self.dtype)[6:]}: its output is"
                    " not finite or has another shape than the latents."
                )
            predicts = self.source.prediction or self._prediction()
            return Preview.fit(self.vae), predicts
        except (InputError, KernelFailed, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = short(str(error).strip() or repr(error))
            raise InputError(f"{place} was loaded but does not run: {reason}") from None

    def _prediction(self) -> str:
        """Of an SD 2.x file that does not say: at the last timestep a noise prediction is close to
        its input, a velocity far below a constant one (as AUTOMATIC1111 tells them apart)."""
        import torch

        latents = torch.full((1, self.unet.config.in_channels, 8, 8), 0.5)
        mean = self._ask(latents, 999).mean() - latents.mean()
        return "v_prediction" if mean < -1 else "epsilon"

    def _ask(self, latents: torch.Tensor, t: int) -> torch.Tensor:
        import torch

        from ..denoising.denoiser import conditions
        from ..prompt.encode import encode
        from ..prompt.syntax import parse

        empty, _, _ = encode(self.text, parse("", 1), parse("", 1))
        context, pooled, _ = empty.at(0)
        more = conditions(pooled, 64, 64, self.device, self.dtype)
        with torch.no_grad():
            return (
                self.unet(
                    latents.to(self.device, self.dtype),
                    t,
                    encoder_hidden_states=context.to(self.device, self.dtype),
                    **more,
                )
                .sample.float()
                .cpu()
            )


def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
