"""Samplers: how noise becomes a picture, step by step, and how the noise levels are spaced.

table.py lists them all; base.py has the two messages that a sampler and the model exchange.
Nothing heavy is imported here.
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
    """Return a new coroutine that turns `noise` into latents: it yields Queries, is sent Answers.

    With `clean`, latents (1, C, h, w), it begins at step `start_step` of `steps` with those and
    `noise` at that step's noise level; Query.step counts from 0 all the same.

    noise             (1, C, h, w), unit variance; its device and dtype are the result's
    steps             what the user asked for, 1 to 200. A sampler of two calls per step calls once
                      at its last step; one of three calls twice at the last but one and once at the
                      last; PLMS calls twice at its first
    scheduler_config  the checkpoint's scheduler_config.json; `"align_your_steps": "sdxl"` in it
                      chooses SD XL's table for that schedule
    generator         on the CPU, whatever the device: the noise of the steps is drawn from it, so
                      draw `noise` from it first
    seed              of DPM++ SDE's Brownian tree

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
    if clean is None:
        start_step = 0
    elif not 0 <= start_step < steps:
        raise InputError(f"start_step must be from 0 to {steps - 1}, not {start_step}.")
    module = importlib.import_module(f"{__name__}.{row.file}")
    plan_row = SCHEDULES[plan]
    return module.make_sampler(
        row, plan_row, scheduler_config, noise, steps, generator, seed, start_step, clean
    )


def start_step_for(strength: float, steps: int) -> int:
    """Return the step at which a picture begins of which `strength`, 0 to 1, may change.

    As in A1111: of 20 steps at 0.75 the last 16 are taken, of any number at least one.
    """
    return steps - int(min(strength, 0.999) * steps) - 1
