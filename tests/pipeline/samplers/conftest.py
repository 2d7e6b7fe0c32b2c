"""What the samplers' tests share: scheduler configurations, an exact denoiser, a sampling loop."""

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
    "epsilon": {  # Stable Diffusion 1.5's: without timestep_spacing, whose default differs by class
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        **SCALED,
    },
    "leading": {**SCALED, "prediction_type": "epsilon", "timestep_spacing": "leading"},
    "v_prediction": {  # like the embedded model's
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
    """Return the scheduler_config.json of three checkpoints as dicts.

    The keys are "epsilon" and "v_prediction", the prediction types, and "leading", the timestep
    spacing.
    """
    return CONFIGS


@pytest.fixture(scope="session")
def gaussian():
    """Return the exact denoiser of independent normal data, with its mean 0.3 and deviation 1.5.

    denoised(x, sigma) is E[x0 | x] where x = x0 + sigma eps (k-diffusion's scale).
    model(prediction) returns a function from a sampler's Query to the Answer of a perfect model of
    that prediction type.
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
    """begin(sampler, ...) returns a sampler's coroutine and its first noise (1, 4, size, size).

    prediction: a key of the fixture `configs`. first: (step to start at, clean latents to start
    from or None).
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
    """drive(coroutine, model) runs a sampler; it returns (final latents, list of its Queries).

    model: a function from a Query to an Answer.
    """

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
    """Run torch with one thread, which is faster for tensors as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
