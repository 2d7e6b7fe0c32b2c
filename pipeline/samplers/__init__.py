"""Samplers: how noise becomes a picture, step by step, and how the noise levels are spaced.

`SAMPLERS` and `SCHEDULES` are the tables that the command line, the page and the tests read.
Nothing heavy is imported here. A new sampler is one line in SAMPLERS; where diffusers has no
scheduler for it, its file beside this one has a `start` of the adapter's signature, and the line
names that file as its `family`.

Names are A1111's. The papers: DDPM arXiv 2006.11239, DDIM 2010.02502, PNDM (PLMS) 2202.09778,
EDM (Euler, Heun, Karras) 2206.00364, DPM-Solver++ 2211.01095, UniPC 2302.04867, DEIS 2204.13902,
LCM 2310.04378, SGM Uniform 2305.08891, Beta 2407.12173.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import InputError, closest
from .base import Answer, Query

if TYPE_CHECKING:
    import torch

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Answer",
    "Query",
    "Sampler",
    "Schedule",
    "check_pair",
    "sampler_key",
    "schedule_key",
    "start",
    "unsupported",
]

ALL = ("automatic", "uniform", "karras", "exponential", "sgm_uniform", "beta")
SPACED = ("automatic", "uniform", "sgm_uniform")  # for samplers bound to the trained timesteps
FIXED = ("automatic", "uniform")


@dataclass(frozen=True)
class Sampler:
    """A line of SAMPLERS.

    `automatic` is the schedule that Automatic means here, `order` the model calls of a step,
    `needs` packages beyond the usual ones, `scheduler` and `flags` diffusers' class and what is
    set on top of the checkpoint's own configuration.
    """

    label: str
    note: str
    scheduler: str
    flags: Mapping[str, object] = field(default_factory=dict)
    schedules: tuple[str, ...] = ALL
    automatic: str = "uniform"
    order: int = 1
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    family: str = "adapter"


@dataclass(frozen=True)
class Schedule:
    """A line of SCHEDULES; `flags` are what diffusers' scheduler classes call it."""

    label: str
    note: str
    flags: Mapping[str, object] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


NO_CLIP = {"clip_sample": False}  # latents are not pixels: nothing holds them within -1 and 1
DPMPP_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}

SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(
        "DDPM",
        "The first one: fresh noise at every step; wants many steps.",
        "DDPMScheduler",
        flags=NO_CLIP,
        schedules=SPACED,
    ),
    "ddim": Sampler(
        "DDIM",
        "The first fast one: no fresh noise, simple and predictable.",
        "DDIMScheduler",
        flags=NO_CLIP,
        schedules=SPACED,
    ),
    "plms": Sampler(
        "PLMS",
        "DDIM with a memory of four steps; one model call more than steps.",
        "PNDMScheduler",
        flags={"skip_prk_steps": True},
        schedules=SPACED,
        aliases=("PNDM",),
    ),
    "euler": Sampler(
        "Euler",
        "Straight steps along the flow: plain, robust, a good first choice.",
        "EulerDiscreteScheduler",
    ),
    "euler_a": Sampler(
        "Euler a",
        "Euler with fresh noise: varied, soft, never settles as steps grow.",
        "EulerAncestralDiscreteScheduler",
        schedules=SPACED,
        aliases=("Euler ancestral",),
    ),
    "heun": Sampler(
        "Heun",
        "Euler that looks ahead and corrects itself: two calls a step, accurate.",
        "HeunDiscreteScheduler",
        order=2,
    ),
    "lms": Sampler(
        "LMS",
        "A straight multistep method with a memory of four steps.",
        "LMSDiscreteScheduler",
        needs=("scipy",),
    ),
    "dpm2": Sampler(
        "DPM2",
        "Looks half a step ahead: two calls a step, accurate.",
        "KDPM2DiscreteScheduler",
        automatic="karras",
        order=2,
    ),
    "dpm2_a": Sampler(
        "DPM2 a",
        "DPM2 with fresh noise: varied; two calls a step.",
        "KDPM2AncestralDiscreteScheduler",
        automatic="karras",
        order=2,
        aliases=("DPM2 ancestral",),
    ),
    "dpmpp_2m": Sampler(
        "DPM++ 2M",
        "The best for few steps at one call each: sharp by 15 to 25 steps.",
        "DPMSolverMultistepScheduler",
        flags=DPMPP_2M,
        automatic="karras",
    ),
    "dpmpp_2m_sde": Sampler(
        "DPM++ 2M SDE",
        "DPM++ 2M with fresh noise: rich detail from 25 steps on.",
        "DPMSolverMultistepScheduler",
        flags=DPMPP_2M | {"algorithm_type": "sde-dpmsolver++"},
        automatic="exponential",
    ),
    "dpmpp_sde": Sampler(
        "DPM++ SDE",
        "Fresh noise that depends on the seed alone, not on the steps; two calls a step.",
        "DPMSolverSDEScheduler",
        automatic="karras",
        order=2,
        needs=("torchsde", "scipy"),
    ),
    "unipc": Sampler(
        "UniPC",
        "Predicts and corrects without a second call: good from 8 steps on.",
        "UniPCMultistepScheduler",
    ),
    "deis": Sampler(
        "DEIS",
        "A multistep method that solves the linear part exactly: good from 10 steps on.",
        "DEISMultistepScheduler",
    ),
    "lcm": Sampler(
        "LCM",
        "For latent consistency models and LCM LoRAs only: 2 to 8 steps.",
        "LCMScheduler",
        flags=NO_CLIP,
        schedules=FIXED,
    ),
}


def _sigmas(kind: str | None, spacing: str) -> dict[str, object]:
    flags = {f"use_{name}_sigmas": name == kind for name in ("karras", "exponential", "beta")}
    return flags | {"use_lu_lambdas": False, "timestep_spacing": spacing}


# "linspace" makes the first and the last noise level the model's own, as k-diffusion has it; with
# the checkpoint's "leading" or "trailing" some of diffusers' classes would cut the range short.
SCHEDULES: dict[str, Schedule] = {
    "automatic": Schedule("Automatic", "What suits the sampler best."),
    "uniform": Schedule("Uniform", "Even timesteps, as the checkpoint's own configuration says."),
    "karras": Schedule(
        "Karras",
        "More steps where there is little noise: fine detail with few steps.",
        _sigmas("karras", "linspace"),
    ),
    "exponential": Schedule(
        "Exponential",
        "Every step divides the noise by the same factor.",
        _sigmas("exponential", "linspace"),
    ),
    "sgm_uniform": Schedule(
        "SGM Uniform",
        "Even timesteps that start at the very last one: whole range, flat colours.",
        _sigmas(None, "trailing"),
    ),
    "beta": Schedule(
        "Beta",
        "More steps at both ends: composition and detail.",
        _sigmas("beta", "linspace"),
        needs=("scipy",),
    ),
}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))


_SAMPLER_KEYS = {
    _plain(name): key for key, s in SAMPLERS.items() for name in (key, s.label, *s.aliases)
}
_SCHEDULE_KEYS = {_plain(name): key for key, s in SCHEDULES.items() for name in (key, s.label)}


def sampler_key(text: str) -> str | None:
    """The key in SAMPLERS that `text` means ("Euler a", "euler_a", "DPM++ 2M"), or None."""
    return _SAMPLER_KEYS.get(_plain(text))


def schedule_key(text: str) -> str | None:
    """The key in SCHEDULES that `text` means ("SGM Uniform", "sgm_uniform"), or None."""
    return _SCHEDULE_KEYS.get(_plain(text))


def check_pair(sampler: str, schedule: str) -> str | None:
    """One sentence if this sampler does not take this schedule (both are keys), else None."""
    row = SAMPLERS[sampler]
    if schedule in row.schedules:
        return None
    return (
        f"{row.label} does not take the schedule {schedule}; it takes {', '.join(row.schedules)}."
    )


def unsupported(name: str) -> str | None:
    """One sentence if the sampler or schedule with this key cannot run here, else None."""
    row = SAMPLERS.get(name) or SCHEDULES[name]
    missing = [p for p in row.needs if importlib.util.find_spec(p) is None]
    if not missing:
        return None
    packages = " and ".join(missing)
    return f"{row.label} needs {packages}: pip install {' '.join(missing)}."


def start(
    sampler: str,
    schedule: str,
    scheduler_config: Mapping[str, object],
    noise: torch.Tensor,
    steps: int,
    generator: torch.Generator,
    seed: int,
) -> Generator[Query, Answer, torch.Tensor]:
    """A fresh coroutine that turns `noise` into latents: yields Query, is sent Answer.

    noise             (1, C, h, w), unit variance; its device and dtype are the result's
    steps             what the user asked for, 1 to 200; Heun, DPM2, DPM2 a and DPM++ SDE call the
                      model twice a step, but for the last; PLMS twice at its first
    scheduler_config  the checkpoint's scheduler_config.json
    generator         on the CPU, whatever the device: the noise of the steps is drawn from it, so
                      draw `noise` from it first
    seed              what DPM++ SDE grows its Brownian tree from

    Raises InputError with a sentence, here and not at the first `next`: unknown names, a pair that
    does not go together, a package that is missing, a configuration that the sampler cannot use.
    """
    key, plan = sampler_key(sampler), schedule_key(schedule)
    if key is None:
        raise InputError(f"There is no sampler {sampler}; there is {closest(sampler, SAMPLERS)}.")
    if plan is None:
        raise InputError(
            f"There is no schedule {schedule}; there is {closest(schedule, SCHEDULES)}."
        )
    row = SAMPLERS[key]
    reason = check_pair(key, plan)
    plan = row.automatic if plan == "automatic" else plan
    reason = reason or unsupported(key) or unsupported(plan)
    if reason:
        raise InputError(reason)
    family = importlib.import_module(f"{__name__}.{row.family}")
    return family.start(row, SCHEDULES[plan], scheduler_config, noise, steps, generator, seed)
