"""Recordings on a tiny random model: what is kept, and in how much memory."""

import math

import pytest
import torch

from pipeline import GenerateOptions, load
from pipeline.introspection.recording import Recorder, RecordingStore
from pipeline.samplers import SAMPLERS, unsupported

ABLE = [s for s in SAMPLERS if not unsupported(s)]
FRESH = ["euler_a", "ddpm", "dpm2_a", "dpmpp_2s_a", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde"]


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


def record(models, **fields):
    """The Result and the recordings of a request."""
    fields = {"prompt": "a red apple", "seed": 5, "steps": 6, "cfg": 3.0} | fields
    recorder = Recorder(models, models.stream(GenerateOptions(**fields), words=True))
    *_, result = recorder
    return result, recorder.recordings


def test_every_model_call_is_recorded_as_it_was(models):
    events = list(models.stream(GenerateOptions(prompt="red", seed=1, steps=3), words=True))
    recorder = Recorder(models, iter(_Closing(events)))
    assert list(recorder) == events
    *steps, result = events
    (recording,) = recorder.recordings
    assert recording.model == (models.name, models.hash, None) and recording.steps == 3
    assert torch.equal(recording.final, result.latents[0])
    for step, call in zip(steps, recording.calls, strict=True):
        assert (call.step, call.sigma) == (step.index - 1, step.sigma)
        assert torch.equal(call.latents, step.latents)
        # signal and noise make the latents again
        alpha = 1 / math.sqrt(1 + call.sigma**2)
        again = alpha * call.clean + call.sigma * alpha * call.noise
        assert torch.allclose(again, call.latents, atol=1e-5)
        assert torch.allclose(call.maps.float(), step.maps, atol=1e-3)
        assert [g.shape for g in call.grids] == [g.shape for g in step.grids]


class _Closing(list):
    """A list whose iterator can be closed, as a stream's can."""

    def __iter__(self):
        yield from super().__iter__()


def test_the_store_drops_the_least_recently_used(models):
    _, some = record(models, count=4, steps=2)
    size = some[0].nbytes
    shared = sum(m.nbytes for m in some[0].calls) + some[0].final.nbytes
    pixels = some[0].image.width * some[0].image.height * 4
    assert size == shared + pixels and shared > 4 * some[0].final.nbytes
    store = RecordingStore(limit=int(2.5 * size))
    keys = store.put(some)
    assert keys == [r.key for r in some] and len(set(keys)) == 4
    assert [store.get(k) is not None for k in keys] == [False, False, True, True]
    assert store.nbytes <= store.limit
    store.get(keys[2])  # used again, so the other makes room
    store.put(some[:1])
    assert [store.get(k) is not None for k in keys] == [True, False, True, False]
    assert store.get(None) is None and store.get("x") is None
    # A picture that takes too much is not kept, and says so by None.
    recorder = Recorder(
        models, models.stream(GenerateOptions(steps=4, seed=1), words=True), limit=shared
    )
    *_, result = recorder
    assert recorder.recordings == [None] and result.images
    assert store.put(recorder.recordings) == [None]


def test_closing_the_recorder_closes_the_request(models):
    events = models.stream(GenerateOptions(steps=5, seed=1))
    recorder = iter(Recorder(models, events))
    next(recorder)
    recorder.close()
    assert events.gi_frame is None
