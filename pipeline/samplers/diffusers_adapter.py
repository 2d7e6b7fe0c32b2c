"""diffusers' schedulers as samplers: one coroutine around any of them, a new instance per image.

diffusers' numbers are kept to the last bit, so every sampler here is diffusers' own with the flags
of the tables (but PLMS, with a model that predicts v). What that means where diffusers departs
from k-diffusion or from the papers:

- DPM++ 2M, UniPC and DEIS pass the UNet whole timesteps: rounded for Karras, cut off for
  Exponential and Beta (so the noise level is exact and the timestep up to one too low). DPM2 and
  DPM2 a round for Karras. k-diffusion passes the fraction, as Euler, Heun and LMS do here.
- A configuration without `timestep_spacing`, as Stable Diffusion 1.5's, means each class's own:
  "leading" for DDPM, DDIM and PLMS, "linspace" for the others.
- Uniform with a single step is the configuration's too: "leading" and "linspace" then start at the
  lowest timestep (DPM++ 2M, UniPC and DEIS do not). SGM Uniform starts at the highest.
- DDIM and PLMS step to t - 1000 // steps, which with "trailing" and a step count that does not
  divide 1000 is not quite the next timestep.
- DEIS ends at the lowest noise level of the schedule (with Uniform and SGM Uniform the model's),
  TCD at the model's, and so do DDIM and PLMS without `set_alpha_to_one`; the others end at zero, if
  `final_sigmas_type` does not say otherwise.
- PLMS is given the noise that a velocity means. diffusers' class would take the mean of velocities
  of several timesteps for one of its own timestep, which makes it a method of first order.
- DPM2 and DPM2 a use every level. A1111 leaves out the last but one.
- Beginning in the middle, every sampler's memory is empty. diffusers' LMS would weigh four slopes
  and have one, its PLMS would take the first step for a second. DEIS with fewer than 15 steps left
  counts as one with few steps and ends in first order.

The schedules that diffusers does not have (schedules.py) take the place of its Karras levels, and
then every sampler passes the UNet a fraction of a timestep. Euler a knows only even timesteps, so
it is given Euler's levels.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from . import schedules, zero_terminal_snr
from .base import Answer, Query
from .prediction import velocity_to_noise
from .table import Sampler, Schedule

Coroutine = Generator[Query, Answer, torch.Tensor]

EULER = "EulerDiscreteScheduler"
COUNTING = ("LCMScheduler", "TCDScheduler")  # they know the last step by counting
# The noise level of a second call between two levels; call i of the sampler.
MIDPOINT: dict[str, Callable[[Any, int], Any]] = {
    "KDPM2DiscreteScheduler": lambda scheduler, i: scheduler.sigmas_interpol[i],
    "KDPM2AncestralDiscreteScheduler": lambda scheduler, i: scheduler.sigmas_interpol[i - 1],
    "DPMSolverSDEScheduler": lambda scheduler, i: scheduler.mid_point_sigma,
}


def make_sampler(
    sampler: Sampler,
    schedule: Schedule,
    config: Mapping[str, Any],
    noise: torch.Tensor,
    steps: int,
    generator: torch.Generator,
    seed: int,
    start_step: int = 0,
    clean: torch.Tensor | None = None,
) -> Coroutine:
    """Return the coroutine for a row of SAMPLERS and one of SCHEDULES; see
    `samplers.make_sampler`."""
    scheduler = build(sampler, schedule, config, steps)
    if hasattr(scheduler, "noise_sampler_seed"):
        _set_brownian_noise(scheduler, noise, seed, generator)
    if start_step:
        _skip_steps(scheduler, start_step, sampler.calls)
    trained = trained_sigmas(scheduler) if schedule.formula else None
    velocity = config.get("prediction_type") == "v_prediction"
    left = steps - start_step
    return _run(scheduler, noise, left, sampler.calls, generator, trained, velocity, clean)


def _skip_steps(scheduler: Any, start_step: int, calls: int) -> None:
    """Leave out what belongs to the first `start_step` steps, at least one.

    calls: of the model per step.

    Its own `set_begin_index` would not do: LMS then takes its history to be as long as the index,
    and PLMS needs its second timestep twice.
    """
    if type(scheduler).__name__ == "PNDMScheduler":
        rest = scheduler.timesteps[start_step + 1 :]
        scheduler.timesteps = torch.cat([rest[:1], rest[1:2], rest[1:]])
        return
    for name in zero_terminal_snr.PER_CALL:
        if getattr(scheduler, name, None) is not None:
            setattr(scheduler, name, getattr(scheduler, name)[start_step * calls :])
    if type(scheduler).__name__ in COUNTING:
        scheduler.num_inference_steps = len(scheduler.timesteps)


def add_first_noise(
    scheduler: Any, noise: torch.Tensor, clean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the noise of the first call to `clean`; return the latents in the scheduler's own scale
    and as the UNet sees them. Without `init_noise_sigma` the two are the same."""
    sigma = sigma_at(scheduler, 0, scheduler.timesteps[0])
    latents = clean.to(noise) + sigma * noise
    x = latents / math.sqrt(1 + sigma**2)
    return latents if hasattr(type(scheduler), "init_noise_sigma") else x, x


def _run(
    scheduler: Any,
    noise: torch.Tensor,
    steps: int,
    calls_per_step: int,
    generator: torch.Generator,
    trained: np.ndarray | None,
    velocity: bool,
    clean: torch.Tensor | None = None,
) -> Coroutine:
    """Sample with `scheduler`. trained: the noise levels of all timesteps, where the UNet is given
    fractions of timesteps. velocity: the model predicts v."""
    device, timesteps = noise.device, scheduler.timesteps
    takes = inspect.signature(scheduler.step).parameters
    more = {"generator": generator} if "generator" in takes else {}
    extra = len(timesteps) - steps  # PLMS calls twice at its first step
    calls = [
        (i, t, i // 2 if calls_per_step == 2 else max(0, i - extra))
        for i, t in enumerate(timesteps)
    ]
    latents = noise * scheduler.init_noise_sigma
    if clean is not None:
        latents, noise = add_first_noise(scheduler, noise, clean)
    if zero_terminal_snr.needs_help(scheduler, sigma_at(scheduler, 0, timesteps[0])):
        last = torch.tensor(float(timesteps[0]), device=device)
        answer = yield Query(noise, last, 0, zero_terminal_snr.SIGMA)
        output = answer.output.to(noise.dtype)
        latents, calls = zero_terminal_snr.leave(
            scheduler, noise, output, velocity, calls_per_step, calls
        )
    for i, t, step in calls:
        sigma = sigma_at(scheduler, i, t)
        x = scheduler.scale_model_input(latents, t)
        unet_t = t if trained is None else torch.tensor(schedules.timestep(sigma, trained))
        unet_t = (unet_t.float() if unet_t.is_floating_point() else unet_t).to(device)
        answer = yield Query(x, unet_t, step, sigma)
        output = answer.output.to(latents.dtype)
        if velocity and scheduler.config.prediction_type == "epsilon":
            output = velocity_to_noise(x, output, sigma)
        latents = scheduler.step(output, t, latents, return_dict=False, **more)[0]
    return latents


def build(sampler: Sampler, schedule: Schedule, config: Mapping[str, Any], steps: int) -> Any:
    """Return diffusers' scheduler for the pair, timesteps set, on the CPU (`step` takes any
    device). Raises InputError in one sentence for a configuration that it cannot use."""
    trained = config.get("num_train_timesteps") or 1000
    predicts = config.get("prediction_type") or "epsilon"
    if not 1 <= steps <= trained:
        raise InputError(f"steps must be from 1 to {trained} with this checkpoint, not {steps}.")
    if predicts not in ("epsilon", "v_prediction"):
        raise InputError(
            f"This checkpoint predicts {predicts}; the samplers take epsilon or v_prediction."
        )
    flags = dict(schedule.flags)
    if steps == 1 and flags.get("timestep_spacing") == "linspace":
        flags["timestep_spacing"] = "trailing"  # one point of linspace(0, 999) would be 0
    if sampler.scheduler in COUNTING:
        usual = config.get("original_inference_steps") or 50
        if steps > usual:  # the next finer division of the trained timesteps
            usual = next(n for n in range(steps, trained + 1) if trained % n == 0)
        flags["original_inference_steps"] = usual
    flags = {name: flag for name, flag in flags.items() if name not in sampler.flags}
    try:
        text = json.dumps(dict(config))
        made = _prototype(sampler.scheduler, text, json.dumps(dict(sampler.flags)))
        scheduler = copy.deepcopy(made)
        scheduler.register_to_config(**{k: v for k, v in flags.items() if k in made.config})
        if config.get("rescale_betas_zero_snr"):
            if "rescale_betas_zero_snr" not in scheduler.config:
                scheduler.alphas_cumprod = _prototype(EULER, text, "{}").alphas_cumprod.clone()
            elif predicts == "epsilon":  # which cannot divide by an abar of 0, as v may
                scheduler.alphas_cumprod.clamp_(min=zero_terminal_snr.ABAR)
        if schedule.formula:
            listed = schedules.levels(schedule, steps, trained_sigmas(scheduler), config)
            scheduler._convert_to_karras = lambda in_sigmas, num_inference_steps=None: listed
        scheduler.set_timesteps(steps)
        if scheduler.timesteps.min() < 0:
            scheduler.set_timesteps(_Steps(steps))
    except (ValueError, TypeError, NotImplementedError, ArithmeticError) as error:
        raise InputError(
            f"{sampler.label} cannot use this checkpoint's scheduler configuration: {error}"
        ) from None
    if sampler.scheduler == "EulerAncestralDiscreteScheduler" and schedule.flags:
        euler = build(dataclasses.replace(sampler, scheduler=EULER), schedule, config, steps)
        scheduler.sigmas, scheduler.timesteps = euler.sigmas, euler.timesteps
    if sampler.scheduler == "KDPM2AncestralDiscreteScheduler":
        _fix_ancestral_levels(scheduler)
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise it looks the first timestep up, and of two that round to the same whole number
        # it takes the second: Beta with many steps would skip a level and run off the end.
        scheduler.set_begin_index(0)
    sigmas = getattr(scheduler, "sigmas", None)
    if steps == 1 and sigmas is not None and sigmas[-1] == sigmas[0]:
        # Ending at the lowest level of the schedule, one step would end where it began.
        abar = scheduler.alphas_cumprod[0]
        sigmas[-1] = ((1 - abar) / abar) ** 0.5
    return scheduler


@functools.lru_cache(maxsize=128)
def _prototype(name: str, config: str, flags: str) -> Any:
    """Return a scheduler to copy: making one takes DPM2 and DPM2 a half a second.

    config, flags: JSON. A configuration may hold other classes' keys, of which diffusers would
    warn: only the known ones are passed on.
    """
    cls = getattr(importlib.import_module("diffusers"), name)
    known = {*inspect.signature(cls.__init__).parameters, "_use_default_values"}
    fields, more = (
        {k: v for k, v in json.loads(text).items() if k in known} for text in (config, flags)
    )
    return cls.from_config(fields, **more)


class _Steps(int):
    """A number of steps by which dividing gives the next larger float.

    "trailing" counts down from 1000 by 1000 / steps, and for 61, 103, 121 and 122 steps rounding
    leaves a remainder, so diffusers' list would get one timestep more: -1.
    """

    def __rtruediv__(self, other: float) -> float:
        return math.nextafter(other / int(self), math.inf)


def sigma_at(scheduler: Any, i: int, t: Any) -> float:
    """Return sigma = sqrt((1 - abar) / abar) at call i, as exactly as the scheduler has it."""
    name = type(scheduler).__name__
    if name in MIDPOINT and not scheduler.state_in_first_order:
        return float(MIDPOINT[name](scheduler, i))
    if hasattr(scheduler, "sigmas"):
        return float(scheduler.sigmas[i])
    abar = float(scheduler.alphas_cumprod[t])
    return math.sqrt((1 - abar) / abar) if abar else zero_terminal_snr.SIGMA


def trained_sigmas(scheduler: Any) -> np.ndarray:
    """Return sigma of every trained timestep, rising, float64."""
    abar = scheduler.alphas_cumprod.double().clamp(min=zero_terminal_snr.ABAR)
    return ((1 - abar) / abar).sqrt().numpy()


def _fix_ancestral_levels(scheduler: Any) -> None:
    """Set DPM2 a's levels where a step divides sigma by thousands and rounding makes them NaN."""
    levels, down, middle = (
        x[::2] for x in (scheduler.sigmas, scheduler.sigmas_down, scheduler.sigmas_interpol)
    )
    lost = ~(down[:-1] > 0) & (levels[1:] > 0)
    down[:-1][lost] = (levels[1:] ** 2 / levels[:-1])[lost]
    middle[:-1][lost] = levels[1:][lost]
    scheduler.timesteps[1::2][lost[:-1]] = scheduler.timesteps[2::2][lost[:-1]]


def _set_brownian_noise(
    scheduler: Any, noise: torch.Tensor, seed: int, generator: torch.Generator
) -> None:
    """Draw DPM++ SDE's Brownian tree on the CPU, so that a GPU gets the same noise. From where
    `generator` is seeded anew on, another tree is used."""
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    levels = scheduler.sigmas[scheduler.sigmas > 0]
    low, high = levels.min().item(), levels.max().item()
    if low == high:  # one step goes straight to zero: no noise, and no tree of no length
        scheduler.noise_sampler = lambda sigma, sigma_next: 0.0
        return
    first_seed = generator.initial_seed()
    trees = {first_seed: BrownianTreeNoiseSampler(noise.cpu(), low, high, seed)}
    # torchsde rounds the tree's ends to six digits, then warns of every level outside of them.
    inner = max(low, round(low, 6)), min(high, round(high, 6))

    def between(sigma: Any, sigma_next: Any) -> torch.Tensor:
        now = generator.initial_seed()
        if now not in trees:
            trees[now] = BrownianTreeNoiseSampler(noise.cpu(), low, high, now)
        ends = (level.double().clamp(*inner) for level in (sigma, sigma_next))
        return trees[now](*ends).to(noise)

    scheduler.noise_sampler = between
