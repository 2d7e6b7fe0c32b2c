"""Samplers: how noise becomes a picture, step by step, and how the noise levels are spaced.

`SAMPLERS` and `SCHEDULES` are the tables that the command line, the page and the tests read.
Nothing heavy is imported here. A new sampler is one line in SAMPLERS; where diffusers has no
scheduler for it, its file beside this one has a `make_sampler` of the adapter's signature, and the
line names that file as its `family`.

Names are A1111's. The papers: DDPM arXiv 2006.11239, DDIM 2010.02502, PNDM (PLMS) 2202.09778,
EDM (Euler, Heun, Karras) 2206.00364, DPM-Solver++ 2211.01095, UniPC 2302.04867, DEIS 2204.13902,
LCM 2310.04378, TCD 2402.19159, Restart 2306.14878, CFG++ 2406.08070, SGM Uniform and zero terminal
SNR 2305.08891, Align Your Steps and KL Optimal 2404.14507, Beta 2407.12173. docs/samplers.md
measures each: the order in which it converges, or the moments of what it draws.
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
    "make_sampler",
    "sampler_key",
    "schedule_key",
    "split_name",
    "start_step_for",
    "unsupported",
]

ALL = (
    "automatic",
    "uniform",
    "karras",
    "exponential",
    "polyexponential",
    "sgm_uniform",
    "kl_optimal",
    "align_your_steps",
    "simple",
    "normal",
    "ddim",
    "beta",
)
SPACED = ("automatic", "uniform", "sgm_uniform")  # for samplers bound to the trained timesteps
FIXED = ("automatic", "uniform")


@dataclass(frozen=True)
class Sampler:
    """A line of SAMPLERS.

    `automatic` is the schedule that Automatic means here, `order` the model calls of a step (the
    last steps may take fewer, see `make_sampler`), `needs` packages beyond the usual ones,
    `scheduler` and `flags` diffusers' class and what is set on top of the checkpoint's own
    configuration. With a `family` other than the adapter the class only gives the noise levels.
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
    family: str = "diffusers_adapter"


@dataclass(frozen=True)
class Schedule:
    """A line of SCHEDULES: `flags` are what diffusers' classes call it, `formula` what we do."""

    label: str
    note: str
    flags: Mapping[str, object] = field(default_factory=dict)
    formula: str | None = None
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
    "ddim_cfgpp": Sampler(
        "DDIM CFG++",
        "DDIM whose guidance stays closer to real pictures; the scale means 1/12.5 of itself.",
        "DDIMScheduler",
        flags=NO_CLIP,
        schedules=SPACED,
        family="ddim_cfgpp",
    ),
    "plms": Sampler(
        "PLMS",
        "DDIM with a memory of four steps; one model call more than steps.",
        "PNDMScheduler",
        flags={"skip_prk_steps": True, "prediction_type": "epsilon"},
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
        aliases=("Euler ancestral",),
    ),
    "heun": Sampler(
        "Heun",
        "Euler that looks ahead and corrects itself: two calls a step, accurate.",
        "HeunDiscreteScheduler",
        order=2,
    ),
    "heunpp2": Sampler(
        "HeunPP2",
        "Heun that looks two steps ahead and trusts it little: three calls a step, smooth.",
        "EulerDiscreteScheduler",
        order=3,
        family="heunpp2",
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
    "dpmpp_2s_a": Sampler(
        "DPM++ 2S a",
        "DPM++ with fresh noise and a look half a step ahead: two calls a step, crisp and varied.",
        "EulerDiscreteScheduler",
        automatic="karras",
        order=2,
        aliases=("DPM++ 2S ancestral",),
        family="dpmpp_2s_a",
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
    "dpmpp_2m_sde_heun": Sampler(
        "DPM++ 2M SDE Heun",
        "DPM++ 2M SDE with another weight on its memory: a little softer.",
        "DPMSolverMultistepScheduler",
        flags=DPMPP_2M | {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        automatic="exponential",
    ),
    "dpmpp_3m_sde": Sampler(
        "DPM++ 3M SDE",
        "DPM++ 2M SDE with a longer memory: for 30 steps and more, and lower guidance.",
        "EulerDiscreteScheduler",
        automatic="exponential",
        family="dpmpp_3m_sde",
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
    "tcd": Sampler(
        "TCD",
        "For trajectory consistency distillation LoRAs only: 2 to 8 steps, more detail than LCM.",
        "TCDScheduler",
        flags=NO_CLIP,
        schedules=FIXED,
    ),
    "restart": Sampler(
        "Restart",
        "Heun that goes back into the noise once or twice to mend errors: from 20 steps on.",
        "EulerDiscreteScheduler",
        automatic="karras",
        order=2,
        family="restart",
    ),
}


def _sigmas(kind: str | None, spacing: str) -> dict[str, object]:
    flags = {f"use_{name}_sigmas": name == kind for name in ("karras", "exponential", "beta")}
    return flags | {"use_lu_lambdas": False, "timestep_spacing": spacing}


# A formula's levels take the place of Karras's in diffusers' classes, so they carry that flag.
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
    "polyexponential": Schedule(
        "Polyexponential",
        "Exponential with a bend that A1111 leaves straight: the same noise levels.",
        _sigmas("karras", "linspace"),
        formula="polyexponential",
    ),
    "sgm_uniform": Schedule(
        "SGM Uniform",
        "Even timesteps that start at the very last one: whole range, flat colours.",
        _sigmas(None, "trailing"),
    ),
    "kl_optimal": Schedule(
        "KL Optimal",
        "Even steps in the angle between picture and noise: best if all pictures were one blur.",
        _sigmas("karras", "linspace"),
        formula="kl_optimal",
    ),
    "align_your_steps": Schedule(
        "Align Your Steps",
        "NVIDIA's optimised noise levels: made for about 10 steps.",
        _sigmas("karras", "linspace"),
        formula="align_your_steps",
    ),
    "simple": Schedule(
        "Simple",
        "Even timesteps from the very last one, cut off to whole ones.",
        _sigmas("karras", "linspace"),
        formula="simple",
    ),
    "normal": Schedule(
        "Normal",
        "Even timesteps from the very last one to the very first: A1111's Uniform.",
        _sigmas("karras", "linspace"),
        formula="normal",
    ),
    "ddim": Schedule(
        "DDIM",
        "Even timesteps from the first one up, as DDIM's authors took them: starts below the top.",
        _sigmas("karras", "linspace"),
        formula="ddim",
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
_ENDINGS = _SCHEDULE_KEYS | {"ka": "karras", "exp": "exponential"}  # k_dpmpp_2m_ka


def sampler_key(text: str) -> str | None:
    """The key in SAMPLERS that `text` means ("Euler a", "euler_a", "DPM++ 2M"), or None."""
    return _SAMPLER_KEYS.get(_plain(text))


def schedule_key(text: str) -> str | None:
    """The key in SCHEDULES that `text` means ("SGM Uniform", "sgm_uniform"), or None."""
    return _SCHEDULE_KEYS.get(_plain(text))


def split_name(text: str) -> tuple[str, str | None] | None:
    """The sampler and the schedule (or None) that an A1111 name of either kind means, as keys.

    "DPM++ 2M Karras" is ("dpmpp_2m", "karras"), "Euler a" and "k_euler_a" are ("euler_a", None). A
    name of no sampler here is None. Whether the two go together is for `check_pair` to say.
    """
    plain = _plain(text)
    for name in (plain, plain.removeprefix("k")):
        if name in _SAMPLER_KEYS:
            return _SAMPLER_KEYS[name], None
        for ending, schedule in _ENDINGS.items():
            sampler = _SAMPLER_KEYS.get(name.removesuffix(ending))
            if sampler and name.endswith(ending):
                return sampler, schedule
    return None


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


def make_sampler(
    sampler: str,
    schedule: str,
    scheduler_config: Mapping[str, object],
    noise: torch.Tensor,
    steps: int,
    generator: torch.Generator,
    seed: int,
    *,
    start_step: int = 0,
    clean: torch.Tensor | None = None,
) -> Generator[Query, Answer, torch.Tensor]:
    """A fresh coroutine that turns `noise` into latents: yields Query, is sent Answer.

    With `clean`, latents (1, C, h, w), it begins at step `begin` of `steps` with those, and `noise`
    as strong as the noise is there; Query.step counts from 0 all the same.

    noise             (1, C, h, w), unit variance; its device and dtype are the result's
    steps             what the user asked for, 1 to 200. Heun, DPM2, DPM2 a, DPM++ 2S a, DPM++ SDE
                      and Restart call the model twice a step, but once at the last; HeunPP2 three
                      times, but twice at the last but one and once at the last; PLMS twice at its
                      first; the others once
    scheduler_config  the checkpoint's scheduler_config.json; `"align_your_steps": "sdxl"` in it
                      chooses SD XL's table for that schedule
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
    if clean is None:
        start_step = 0
    elif not 0 <= start_step < steps:
        raise InputError(f"start_step must be from 0 to {steps - 1}, not {start_step}.")
    given = SCHEDULES[plan], scheduler_config, noise, steps, generator, seed, start_step, clean
    return family.make_sampler(row, *given)


def start_step_for(strength: float, steps: int) -> int:
    """The step of `steps` at which a picture begins of which `strength`, 0 to 1, may change.

    As in A1111: of 20 steps at 0.75 the last 16 are taken, of any number at least one.
    """
    return steps - int(min(strength, 0.999) * steps) - 1
