"""Choose the device and the dtype of a model, and move its networks to the device."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest, short

if TYPE_CHECKING:
    import torch

# Measured on two cores with the embedded model: bf16 is 1.2 times as fast as fp32 but moves the
# latents by 0.004; channels-last is no faster.
AUTO_DTYPE = {"cpu": "fp32", "cuda": "fp16", "mps": "fp32"}
VAE_DTYPE = "fp32"  # fp16 overflows in some autoencoders, and decoding is one call of many
CHANNELS_LAST = {"cpu": False, "cuda": False, "mps": False}  # memory format of UNet and VAE
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}  # from option to torch's name
DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """Return the device called `name`: "auto", "cpu", "cuda", "cuda:N" or "mps".

    "auto" is the first that this machine has of cuda, mps and cpu. Raises InputError for another
    name and for a device that the machine lacks.
    """
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
    """Return the dtype of UNet and text encoders for `name`: "auto", "fp32", "fp16" or "bf16".

    "auto" is fp16 on CUDA and fp32 elsewhere. Raises InputError for another name and for a dtype
    that the device does not compute in, or only slowly.
    """
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


def place_parts(parts: dict[str, Any], device: torch.device, low_memory: bool) -> None:
    """Move the networks to `device` in place.

    parts: from name ("unet", "vae", "text_encoder", ...) to network. low_memory: keep the weights
    in main memory and copy each layer's to the device only while it runs, and let the autoencoder
    work in tiles, one picture at a time.
    """
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


def offload(parts: dict[str, Any], device: torch.device) -> None:
    """Keep the networks' weights in main memory; copy each layer's to `device` only while it runs.

    parts: from name to network; they are changed in place. Uses accelerate's cpu_offload.
    """
    from accelerate import cpu_offload  # type: ignore[import-untyped]  # ships no types

    for part in parts.values():
        cpu_offload(part, device)
