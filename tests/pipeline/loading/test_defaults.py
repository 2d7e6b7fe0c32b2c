"""A model's own settings and vocabulary, and the defaults of its architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.loading.defaults import DEFAULTS, read_defaults
from pipeline.loading.load import load
from pipeline.model_files import manifest
from pipeline.options import GenerateOptions


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "words, prediction, side",
    [(768, "epsilon", 512), (1024, "v_prediction", 768), (1024, "epsilon", 512)],
)
def test_defaults_of_an_architecture(tiny_copy, words, prediction, side):
    change(tiny_copy / "unet/config.json", cross_attention_dim=words)
    change(tiny_copy / "scheduler/scheduler_config.json", prediction_type=prediction)
    change(tiny_copy / "text_encoder/config.json", hidden_size=words)
    defaults = read_defaults(manifest.open(tiny_copy), prediction)
    assert list(defaults) == list(DEFAULTS)
    assert list(defaults.values()) == ["euler_a", "automatic", 20, 7.0, side, side]


def test_own_defaults_and_vocabulary(tiny_copy):
    own = {"sampler": "DPM++ 2M", "schedule": "karras", "steps": 12, "cfg": 5}
    (tiny_copy / "generation.json").write_text(json.dumps(own))
    rows = [{"emoji": "🍎", "en": "red apple", "zh": "红苹果", "group": "food"}]
    (tiny_copy / "vocabulary.json").write_text(json.dumps(rows))
    models = load(tiny_copy, device="cpu")
    assert models.vocabulary == rows
    assert list(models.defaults.values()) == ["dpmpp_2m", "karras", 12, 5.0, 64, 64]
    filled = models.resolve(GenerateOptions(prompt="x", height=128, count=16))
    assert (filled.sampler, filled.schedule, filled.steps, filled.cfg) == (
        "dpmpp_2m",
        "karras",
        12,
        5,
    )
    assert (filled.width, filled.height, filled.count) == (64, 128, 16)
    assert 0 <= filled.seed <= 2**32 - 16
    assert models.resolve(GenerateOptions(seed=7)).seed == 7
    # Euler a takes no Karras sigmas in every build of the table; what is kept must go together.
    other = models.resolve(GenerateOptions(sampler="ddim"))
    assert (other.sampler, other.schedule) == ("ddim", "automatic")
