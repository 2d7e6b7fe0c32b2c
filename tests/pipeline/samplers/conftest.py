"""Checkpoints' scheduler configurations, a model with a known answer, and the engine's loop."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.samplers import Answer, make_sampler

SCALED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
CONFIGS = {
    "epsilon": {  # Stable Diffusion 1.5's file: no timestep_spacing, so every class its own
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        **SCALED,
    },
    "leading": {**SCALED, "prediction_type": "epsilon", "timestep_spacing": "leading"},
    "v_prediction": {  # the embedded model's kind
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.42.1",
        **SCALED,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "interpolation_type": "linear",
    },
}


@pytest.fixture(scope="session")
def configs():
    """scheduler_config.json of three checkpoints; two go by what they predict."""
    return CONFIGS


@pytest.fixture(scope="session")
def gaussian():
    """Data whose every number is normal, mean 0.3, deviation 1.5: the exact denoiser is known.

    `denoised(x, sigma)` is E[x0 | x] in k-diffusion's scale (x = x0 + sigma eps) and
    `model(prediction_type)` the same as a model that answers a Query.
    """
    mean, deviation = 0.3, 1.5

    def denoised(x, sigma):
        return (deviation**2 * x + sigma**2 * mean) / (deviation**2 + sigma**2)

    def model(prediction):
        def answer(query):
            sigma = query.sigma
            abar = 1 / (1 + sigma**2)
            x0 = denoised(query.x / abar**0.5, sigma)
            eps = (query.x - abar**0.5 * x0) / (1 - abar) ** 0.5
            v = abar**0.5 * eps - (1 - abar) ** 0.5 * x0
            return Answer({"epsilon": eps, "v_prediction": v}[prediction])

        return answer

    return SimpleNamespace(mean=mean, deviation=deviation, denoised=denoised, model=model)


@pytest.fixture(scope="session")
def begin(configs):
    """begin(sampler, schedule, prediction, steps, seed) -> (coroutine, its first noise).

    `first` is the step to begin at and the clean latents to begin from.
    """

    def function(
        sampler,
        schedule="automatic",
        prediction="v_prediction",
        steps=5,
        seed=7,
        size=8,
        first=(0, None),
    ):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 4, size, size, generator=generator)
        config = configs[prediction]
        place = dict(zip(("start_step", "clean"), first, strict=True))
        return make_sampler(
            sampler, schedule, config, noise, steps, generator, seed, **place
        ), noise

    return function


@pytest.fixture(scope="session")
def drive():
    """drive(coroutine, model) -> (final latents, the queries)."""

    def function(sampler, model):
        queries = [next(sampler)]
        while True:
            try:
                queries.append(sampler.send(model(queries[-1])))
            except StopIteration as end:
                return end.value, queries

    return function


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors this small only lose by being shared between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
