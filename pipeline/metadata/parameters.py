"""Compose the metadata of a picture: its A1111 "parameters" text, and what ran to draw it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..samplers import SAMPLERS, SCHEDULES
from ..version import __version__
from . import infotext

if TYPE_CHECKING:
    from ..backends import BackendSession
    from ..model import Models
    from ..options import ResolvedOptions
    from ..prompt.resources import PromptResources


def parameters_text(
    models: Models,
    options: ResolvedOptions,
    seeds: tuple[int, int | None],
    resources: PromptResources,
    task_fields: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the A1111 "parameters" text of one picture.

    options: with all defaults filled in. seeds: the picture's seed, and its variation seed or None.
    resources: the LoRAs and embeddings that its prompt uses. task_fields: further settings of a
    task, from name in the text ("Denoising strength") to value.
    """
    seed, variation_seed = seeds
    return infotext.build(
        options.prompt,
        options.negative,
        {
            "Steps": options.steps,
            "Sampler": SAMPLERS[options.sampler].label,
            "Schedule type": SCHEDULES[options.schedule].label,
            "CFG scale": options.cfg,
            "Seed": seed,
            "Size": f"{options.width}x{options.height}",
            "Model hash": models.hash,
            "Model": models.name,
            "VAE": models.vae_name,
            **task_fields,
            "CFG rescale": options.cfg_rescale or None,
            "Variation seed": variation_seed,
            "Variation seed strength": options.variation_strength or None,
            "Clip skip": options.clip_skip,
            "Lora hashes": resources.hashes("lora"),
            "TI hashes": resources.hashes("embedding"),
            "Version": f"glassbox {__version__}",
        },
    )


def describe_run(models: Models, session: BackendSession) -> dict[str, Any]:
    """Return what a picture was drawn with, for Result.metadata, by name.

    "model", "model_hash", "vae", "device", "dtype", the backends "attention", "vae_attention" and
    "group_norm", and versions: "torch", "python", "glassbox". session: the backends that the
    request used; they may have changed after failures of kernels.
    """
    import torch

    return {
        "model": models.name,
        "model_hash": models.hash,
        "vae": models.vae_name,
        "device": str(models.device),
        "dtype": str(models.dtype).removeprefix("torch."),
        "attention": session.attention,
        "vae_attention": session.vae_attention,
        "group_norm": session.group_norm,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "glassbox": __version__,
    }
