"""Samplers that run a diffusers scheduler: one generator for all classes, a scheduler per image.

The results equal diffusers' own to the last bit, with the flags of table.py set (except PLMS with a
model that predicts v). So these samplers differ from k-diffusion, A1111 and the papers wherever
diffusers does:

- DPM++ 2M, UniPC and DEIS pass whole timesteps to the UNet: rounded with Karras, rounded down with
  Exponential and Beta (the noise level is exact, the timestep up to one too low). DPM2 and DPM2 a
  round with Karras. k-diffusion passes fractions of timesteps, as Euler, Heun and LMS do here.
- If the configuration has no `timestep_spacing`, as Stable Diffusion 1.5's, each class's default is
  used: "leading" for DDPM, DDIM and PLMS, "linspace" for the others.
- The schedule Uniform with a single step also follows `timestep_spacing`: with "leading" and
  "linspace" it starts at the lowest timestep (except DPM++ 2M, UniPC and DEIS). SGM Uniform starts
  at the highest.
- DDIM and PLMS step to timestep t - 1000 // steps. With "trailing" and a number of steps that does
  not divide 1000, this differs a little from the next timestep.
- DEIS ends at the lowest noise level of the schedule (with Uniform and SGM Uniform that of the
  model); TCD ends at the model's lowest level, as do DDIM and PLMS without `set_alpha_to_one`. The
  others end at zero, unless `final_sigmas_type` says otherwise.
- With a model that predicts v, PLMS receives the predicted noise instead. diffusers' class would
  average velocities of several timesteps as if they were of one, which lowers its order to one.
- DPM2 and DPM2 a use every noise level. A1111 skips the last but one.
- If sampling begins at a later step (image to image), a multistep sampler starts without history.
  diffusers' LMS would use weights for four slopes with only one, and its PLMS would treat the first
  step as the second. DEIS with fewer than 15 remaining steps ends in first order, as it does with
  few steps in all.

Schedules that diffusers does not have (schedules.py) replace its Karras levels; then all samplers
pass fractions of timesteps to the UNet. diffusers' Euler a supports only even timesteps, so it is
given Euler's noise levels.
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
COUNTING = ("LCMScheduler", "TCDScheduler")  # they count the steps to recognize the last one
# For schedulers whose second call of a step is at a noise level between two others: the function
# (scheduler, index of the call) -> that noise level.
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
    """Return a generator that samples one picture with a scheduler of diffusers.

    It yields a Query (the UNet's input) for each model call, must be sent the Answer (the UNet's
    output), and returns the final latents (1, C, h, w).

    sampler, schedule: values of the dicts SAMPLERS and SCHEDULES. config: the checkpoint's
    scheduler configuration. noise: (1, C, h, w), unit variance. generator: draws the noise that is
    added during sampling. seed: seeds the Brownian tree of DPM++ SDE; others ignore it. Raises
    InputError for steps or a configuration that the scheduler cannot use. clean: for image to
    image, the latents (1, C, h, w) to begin with, plus noise of the level of step `start_step`;
    None begins with noise alone.
    """
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
    """Remove the first `start_step` steps from a diffusers scheduler's lists, for image to image.

    The lists are those with one number per model call, such as `timesteps` and `sigmas`.
    start_step: 1 or more. calls: number of model calls per step. diffusers' `set_begin_index`
    cannot do this: LMS would then assume that its history is as long as the index, and PLMS needs
    its second timestep twice.
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
    """Return the latents that image to image begins with: `clean` plus noise of the first level.

    The level is that of the scheduler's first timestep. clean, noise: (1, C, h, w). Returns the
    noisy latents twice: in the scheduler's own scale, and in the variance-preserving scale of the
    UNet's input. For a class without `init_noise_sigma` the two are the same.
    """
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
    """Run a diffusers scheduler over all its timesteps, as a generator that asks for model calls.

    It yields a Query (the UNet's input) for each model call, is sent the Answer (the UNet's
    output), and returns the final latents (1, C, h, w).

    noise           (1, C, h, w), unit variance: the noise to begin with
    steps           number of steps that are taken
    calls_per_step  model calls per step of the sampler
    generator       draws the noise that is added during sampling
    trained         the noise level of every trained timestep, if the UNet shall be given fractions
                    of timesteps; None: it is given the scheduler's timesteps
    velocity        whether the model predicts v; else it predicts noise
    clean           latents to begin from, with noise; None begins with noise alone
    """
    device, timesteps = noise.device, scheduler.timesteps
    parameters = inspect.signature(scheduler.step).parameters
    step_arguments = {"generator": generator} if "generator" in parameters else {}
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
        latents = scheduler.step(output, t, latents, return_dict=False, **step_arguments)[0]
    return latents


def build(sampler: Sampler, schedule: Schedule, config: Mapping[str, Any], steps: int) -> Any:
    """Return a new diffusers scheduler for the sampler and the schedule, with its timesteps set.

    Its tensors are on the CPU; its `step` works with latents on any device. config: the
    checkpoint's scheduler configuration. Raises InputError for a number of steps or a
    configuration that the scheduler cannot use.
    """
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
            elif predicts == "epsilon":  # x0 = (x - beta eps) / alpha would divide by 0; v does not
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
    """Return a cached diffusers scheduler of the class `name`; copy it, do not change it.

    Cached because DPM2 and DPM2 a take half a second to create. config: the scheduler configuration
    as JSON. flags: arguments that override it, as JSON. Keys that the class does not know are left
    out, because diffusers would warn of them.
    """
    cls = getattr(importlib.import_module("diffusers"), name)
    known = {*inspect.signature(cls.__init__).parameters, "_use_default_values"}
    fields, overrides = (
        {k: v for k, v in json.loads(text).items() if k in known} for text in (config, flags)
    )
    return cls.from_config(fields, **overrides)


class _Steps(int):
    """A number of steps n for which x / n is rounded up to the next larger float.

    It works around a rounding error in diffusers: with "trailing" it counts down from 1000 in steps
    of 1000 / n, and for 61, 103, 121 and 122 steps it would add a further timestep, -1.
    """

    def __rtruediv__(self, other: float) -> float:
        return math.nextafter(other / int(self), math.inf)


def sigma_at(scheduler: Any, i: int, t: Any) -> float:
    """Return the noise level sigma = sqrt((1 - abar) / abar) of model call i, at timestep t.

    It is read from the diffusers scheduler's `sigmas` if it has them, because t may be rounded,
    else from its `alphas_cumprod`.
    """
    name = type(scheduler).__name__
    if name in MIDPOINT and not scheduler.state_in_first_order:
        return float(MIDPOINT[name](scheduler, i))
    if hasattr(scheduler, "sigmas"):
        return float(scheduler.sigmas[i])
    abar = float(scheduler.alphas_cumprod[t])
    return math.sqrt((1 - abar) / abar) if abar else zero_terminal_snr.SIGMA


def trained_sigmas(scheduler: Any) -> np.ndarray:
    """Return the noise level sigma of every trained timestep, (T,) float64, rising.

    It is computed from `alphas_cumprod` of a diffusers scheduler.
    """
    abar = scheduler.alphas_cumprod.double().clamp(min=zero_terminal_snr.ABAR)
    return ((1 - abar) / abar).sqrt().numpy()


def _fix_ancestral_levels(scheduler: Any) -> None:
    """Repair the noise levels that are NaN in the diffusers scheduler of sampler DPM2 a, in place.

    Rounding makes them NaN where one step divides sigma by thousands. There `sigmas_down` is set to
    sigma_next**2 / sigma. Each step makes two model calls; the second one gets the noise level and
    timestep of the next step. scheduler: a KDPM2AncestralDiscreteScheduler.
    """
    levels, down, middle = (
        x[::2] for x in (scheduler.sigmas, scheduler.sigmas_down, scheduler.sigmas_interpol)
    )
    invalid = ~(down[:-1] > 0) & (levels[1:] > 0)
    down[:-1][invalid] = (levels[1:] ** 2 / levels[:-1])[invalid]
    middle[:-1][invalid] = levels[1:][invalid]
    scheduler.timesteps[1::2][invalid[:-1]] = scheduler.timesteps[2::2][invalid[:-1]]


def _set_brownian_noise(
    scheduler: Any, noise: torch.Tensor, seed: int, generator: torch.Generator
) -> None:
    """Make DPM++ SDE draw its Brownian noise on the CPU, so that every device gets the same noise.

    noise: gives the shape, device and dtype of the noise. seed: seeds the Brownian tree. When
    `generator` is given a new seed during sampling, a new tree with that seed is used from then on.
    """
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
        current_seed = generator.initial_seed()
        if current_seed not in trees:
            trees[current_seed] = BrownianTreeNoiseSampler(noise.cpu(), low, high, current_seed)
        ends = (level.double().clamp(*inner) for level in (sigma, sigma_next))
        return trees[current_seed](*ends).to(noise)

    scheduler.noise_sampler = between
