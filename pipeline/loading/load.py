"""Load a model by its name or path: find, check, read, move to a device and test it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ..model import Models
from ..model_files import manifest
from ..model_files.tensor_plan import TEXT_ENCODERS
from .autoencoder import with_vae
from .defaults import read_defaults, read_vocabulary
from .device import DTYPES, VAE_DTYPE, choose_device, choose_dtype, place_parts
from .hub import download
from .networks import load_weights, plan_network
from .resolve import find_model, find_vae, model_name
from .silence import silence_libraries
from .smoke_test import SmokeTest
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch

# From text encoder to tokenizer, both names of components.
TOKENIZER_OF = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
# transformers and diffusers change global state while they build a model.
_LOADING = threading.Lock()


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
    """Load a model and return it, ready to draw.

    name: a model of this package or in ./models, a path to a diffusers folder or a .safetensors
    file, or a Hub id "owner/name". device: auto, cpu, cuda, cuda:N or mps. dtype: auto, fp32, fp16
    or bf16, of the UNet and the text encoders; the autoencoder stays in fp32. attention,
    group_norm: names of backends (see pipeline.backends), or auto. vae: name or path of another
    autoencoder. low_memory: keep the weights in main memory, copy each layer's to the GPU while it
    runs, and decode pictures in tiles. Raises InputError, one sentence, where this fails.
    """
    path = find_model(name)
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    with _LOADING, silence_libraries():
        # Not in the frame that holds the weights: a package that cannot be imported may keep the
        # frames of its failure for ever, and the first model with them.
        from .. import backends

        for kind, wanted in (("attention", attention), ("group_norm", group_norm)):
            backends.choose(kind, wanted, torch_device, torch_dtype)  # refused before loading
    return _load(name, path, torch_device, torch_dtype, attention, group_norm, vae, low_memory)


def _load(
    name: str | os.PathLike,
    path: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    group_norm: str,
    vae: str | os.PathLike | None,
    low_memory: bool,
) -> Models:
    """Load a model, given the device and dtype that `load` chose for it.

    name: as the user gave it. path: the model's file or folder; None to download `name` from the
    Hub. attention, group_norm: names of backends, or "auto". vae: name or path of another
    autoencoder. low_memory: keep the weights in main memory. Raises InputError where this fails.
    """
    vae_path = None if vae is None else find_vae(vae)
    found = with_vae(manifest.open(path or download(str(name))), vae_path)
    display_name = str(name) if path is None else model_name(found.path)
    vocabulary = read_vocabulary(found)
    with _LOADING, silence_libraries():
        import torch

        from .. import backends
        from ..lora.adapters import Adapters
        from ..oom import DeviceOutOfMemory
        from ..prompt.encode import TextEncoder, TextEncoders

        planned = {n: plan_network(files) for n, files in found.networks.items()}
        encoders = []
        for encoder in (n for n in TEXT_ENCODERS if n in planned):
            files, module = found.tokenizers[TOKENIZER_OF[encoder]], planned[encoder].module
            encoders.append(TextEncoder(load_tokenizer(files, module), module, device))
        read_defaults(found, "epsilon")  # all is checked before the first weight is read
        dtypes = dict.fromkeys(planned, dtype) | {"vae": getattr(torch, DTYPES[VAE_DTYPE])}
        networks = load_weights(planned, dtypes)
        family = cast(Literal["sd1", "sd2", "xl"], found.family)
        text = TextEncoders(tuple(encoders), family, found.zero_empty_negative)
        unet, autoencoder = networks["unet"], networks["vae"]
        try:
            place_parts(networks, device, low_memory)
            used = backends.Backends(unet, autoencoder, device, dtype, attention, group_norm)
            test = SmokeTest(found, text, unet, autoencoder, device, dtype)
            preview, prediction = used.open_session().call(test)
        except torch.OutOfMemoryError:
            raise DeviceOutOfMemory(
                f"{display_name} does not fit into the free memory of {device}; free some, load it"
                " with --low-memory, or with device cpu."
            ) from None
        scheduler = found.scheduler | {"prediction_type": prediction}
        if found.family == "xl":
            scheduler.setdefault("align_your_steps", "sdxl")  # which of NVIDIA's tables
        return Models(
            name=display_name,
            path=found.path,
            family=found.family,
            what=found.what,
            vae_name=None if vae_path is None else model_name(vae_path),
            warnings=found.warnings,
            hash=found.hash,
            digests=found.digests,
            unet=unet,
            vae=autoencoder,
            text=text,
            adapters=Adapters({n: part for n, part in networks.items() if n != "vae"}, device),
            scheduler_config=scheduler,
            defaults=read_defaults(found, prediction),
            vocabulary=vocabulary,
            device=device,
            dtype=dtype,
            vae_dtype=dtypes["vae"],
            backends=used,
            preview=preview,
        )
