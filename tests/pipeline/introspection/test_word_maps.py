"""Word maps of one call and their mean over the calls, on a tiny random model."""

from dataclasses import replace

import pytest
import torch

from pipeline import GenerateOptions, load
from pipeline.introspection.recording import Recorder
from pipeline.introspection.word_maps import average_word_maps


@pytest.fixture(scope="module")
def recording(tiny_model):
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    options = GenerateOptions(prompt="red apple", seed=7, steps=4, cfg=3.0, sampler="euler")
    recorder = Recorder(models, models.stream(options, words=True))
    list(recorder)
    return recorder.recordings[0]


@pytest.mark.parametrize("call", [0, 3, -1])
def test_word_maps_are_the_mean_of_those_recorded(recording, call):
    calls = recording.calls if call < 0 else [recording.calls[call]]
    found = average_word_maps(recording, call)
    assert len(found) == len(calls[0].grids) + 1
    for at, maps in enumerate(found):
        recorded = [[*m.grids, m.maps][at].float() for m in calls]
        assert torch.equal(maps, torch.stack(recorded).mean(0))
        assert maps.shape[0] == 2 and maps.dtype == torch.float32


def test_calls_with_other_words_are_left_out_of_the_mean(recording):
    first, *others = recording.calls
    first = replace(first, words=("blue", "pear"))
    found = average_word_maps(replace(recording, calls=(first, *others)))
    expected = average_word_maps(replace(recording, calls=tuple(others)))
    assert all(map(torch.equal, found, expected))


def test_without_recorded_maps_there_are_none(recording):
    calls = tuple(replace(m, maps=None, grids=(), words=()) for m in recording.calls)
    assert average_word_maps(replace(recording, calls=calls)) == []
