"""Load a model: from a name to networks on a device."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from ..model import Models
from ..model_files import manifest
from .defaults import read_defaults, read_vocabulary
from .device import DTYPES, VAE_DTYPE, choose_device, choose_dtype, place_parts
from .hub import download
from .resolve import find_model, find_vae, model_name
from .silence import silence_libraries
from .smoke_test import SmokeTest
from .tokenizer import load_tokenizer

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
    """The model `name` on `device`; InputError in one sentence for whatever is wrong with it.

    device: auto, cpu, cuda, cuda:N, mps. dtype: auto, fp32, fp16, bf16, of the UNet and the text
    encoders; the autoencoder stays in fp32. attention, group_norm: names of backends.py. vae: name
    or path of another autoencoder. low_memory: weights stay in main memory and visit the GPU layer
    by layer, and pictures are decoded in tiles.
    """
    place = find_model(name)
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    with _LOADING, silence_libraries():
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
    vae = None if vae is None else find_vae(vae)
    source = manifest.with_vae(source, vae)
    called = str(name) if place is None else model_name(source.path)
    vocabulary = read_vocabulary(source.path)
    with _LOADING, silence_libraries():
        import torch

        from .. import backends
        from ..lora.adapters import Adapters
        from ..oom import DeviceOutOfMemory
        from ..prompt.encode import TextEncoder, TextEncoders

        types = {"vae": getattr(torch, DTYPES[VAE_DTYPE])}
        plans = {n: manifest.plan(source, n) for n in source.parts}
        encoders = []
        for encoder in (n for n in manifest.TEXT_ENCODERS if n in plans):
            tokens = encoder.replace("text_encoder", "tokenizer")
            tokenizer = load_tokenizer(source.tokenizers[tokens], plans[encoder].model)
            encoders.append(TextEncoder(tokenizer, plans[encoder].model, torch_device))
        read_defaults(source, "epsilon")  # all is checked before the first weight is read
        parts = {n: p.fill(types.get(n, torch_dtype)) for n, p in plans.items()}
        text = TextEncoders(tuple(encoders), source.family, source.zero_empty_negative)
        unet, autoencoder = parts["unet"], parts["vae"]
        try:
            place_parts(parts, torch_device, low_memory)
            used = backends.Backends(
                unet, autoencoder, torch_device, torch_dtype, attention, group_norm
            )
            run = SmokeTest(source, text, unet, autoencoder, torch_device, torch_dtype)
            preview, predicts = used.start().call(run)
        except torch.OutOfMemoryError:
            raise DeviceOutOfMemory(
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
            vae_name=None if vae is None else model_name(vae),
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


def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
