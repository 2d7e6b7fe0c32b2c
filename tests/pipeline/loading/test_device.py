"""A device, a number format or a backend that cannot be had gets a sentence."""

from __future__ import annotations

import pytest
import torch

from pipeline.loading.load import load


@pytest.mark.parametrize(
    "options, words",
    [
        ({"device": "cuda"}, "There is no cuda device"),
        ({"device": "mps"}, "There is no mps device"),
        ({"device": "gpu"}, "There is no device 'gpu'; there is"),
        ({"device": "cuda:x"}, "There is no device"),
        ({"device": None}, "There is no device None"),
        ({"dtype": "fp16"}, "use dtype fp32 or bf16"),
        ({"dtype": "fp64"}, "There is no dtype 'fp64'; there is fp"),
        ({"dtype": 3}, "There is no dtype 3"),
        ({"attention": "flash"}, "There is no attention backend"),
        ({"group_norm": "fast"}, "There is no GroupNorm backend"),
    ],
)
def test_bad_option_gets_a_sentence(tiny_model, monkeypatch, options, words, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert words in sentence(load, tiny_model, **options)
