"""Samplers, which turn noise into latents step by step, and schedules, which choose noise levels.

table.py lists all samplers and schedules. base.py defines Query and Answer, the two messages that a
sampler and the model exchange. Importing this package does not import torch or diffusers.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from ..errors import InputError, closest
from .base import Answer, Query
from .names import check_pair, sampler_key, schedule_key, split_name, unsupported
from .table import SAMPLERS, SCHEDULES, Sampler, Schedule

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
    """Return a generator that samples one picture: it asks for model calls, returns the latents.

    It yields a Query (the UNet's input) for each model call, must be sent the Answer (the UNet's
    output) with `send`, and at its end returns the final latents (1, C, h, w), with the device and
    dtype of `noise`.

    sampler, schedule  names of the two in any usual spelling, such as "Euler a" and "karras"
    scheduler_config   content of the checkpoint's scheduler_config.json. The additional key
                       `"align_your_steps": "sdxl"` makes the schedule Align Your Steps use SD XL's
                       table instead of that of SD 1.5
    noise              (1, C, h, w), unit variance: the noise that sampling begins with
    steps              number of sampling steps, 1 to 200. A sampler with two model calls per step
                       makes one call at its last step; one with three makes two at its last step
                       but one and one at its last; PLMS makes two at its first
    generator          a CPU generator, even if `noise` is on a GPU. Noise that is added during
                       sampling is drawn from it, so draw `noise` from it before
    seed               seeds the Brownian tree of DPM++ SDE; other samplers ignore it
    clean              latents (1, C, h, w) for image to image: sampling begins with them plus
                       `noise` at the noise level of step `start_step`; None begins with noise alone
    start_step         number of steps to skip, 0 to steps - 1; ignored without `clean`. Query.step
                       counts from 0 even so

    Raises InputError immediately, not at the first `next`: for an unknown name, a schedule that the
    sampler does not accept, a missing package, or a configuration that the sampler cannot use.
    """
    key, schedule_name = sampler_key(sampler), schedule_key(schedule)
    if key is None:
        raise InputError(f"There is no sampler {sampler}; there is {closest(sampler, SAMPLERS)}.")
    if schedule_name is None:
        raise InputError(
            f"There is no schedule {schedule}; there is {closest(schedule, SCHEDULES)}."
        )
    row = SAMPLERS[key]
    reason = check_pair(key, schedule_name)
    if schedule_name == "automatic":
        schedule_name = row.automatic
    reason = reason or unsupported(key) or unsupported(schedule_name)
    if reason:
        raise InputError(reason)
    if clean is None:
        start_step = 0
    elif not 0 <= start_step < steps:
        raise InputError(f"start_step must be from 0 to {steps - 1}, not {start_step}.")
    module = importlib.import_module(f"{__name__}.{row.file}")
    schedule_row = SCHEDULES[schedule_name]
    return module.make_sampler(
        row, schedule_row, scheduler_config, noise, steps, generator, seed, start_step, clean
    )


def start_step_for(strength: float, steps: int) -> int:
    """Return how many steps image to image skips, for a denoising strength from 0 to 1.

    This is also the index, from 0, of the first step that is run. As in A1111: with 20 steps and
    strength 0.75, 4 are skipped and 16 are run. At least one step is always run.
    """
    return steps - int(min(strength, 0.999) * steps) - 1
