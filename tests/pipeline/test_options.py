"""GenerateOptions: every limit, one sentence a violation."""

import math

import pytest

from pipeline.errors import InputError
from pipeline.options import LIMITS, MAX_PROMPT, GenerateOptions


def test_defaults_are_the_models_own():
    options = GenerateOptions()
    assert options.prompt == "" and options.count == 1
    assert options.sampler is options.steps is options.seed is options.width is None
    assert options.clip_skip is None and options.cfg_rescale == 0.0
    assert GenerateOptions(cfg_rescale=None).cfg_rescale == 0.0


def test_size_stands_for_width_and_height():
    options = GenerateOptions(size=(128, 64))
    assert (options.width, options.height) == (128, 64)


def test_numbers_may_come_as_text():
    options = GenerateOptions(steps="20", cfg="7.5", seed="3", width="128", height=128.0)
    assert (options.steps, options.cfg, options.seed, options.height) == (20, 7.5, 3, 128)


@pytest.mark.parametrize("name", ["Euler a", "euler_a", "EULER A", "euler a"])
def test_sampler_names_of_a1111_are_understood(name):
    assert GenerateOptions(sampler=name).sampler == "euler_a"


@pytest.mark.parametrize("field", list(LIMITS))
def test_limits_are_allowed_and_what_lies_beyond_is_not(field):
    low, high = LIMITS[field]
    for value in (low, high):
        assert getattr(GenerateOptions(**{field: value}), field) == value
    beyond = [low - 1, high + 1, math.nan, math.inf, -math.inf, 1e308, "many", True, [1]]
    if field not in ("cfg", "cfg_rescale", "variation_strength"):
        beyond.append(low + 0.5)
    for value in beyond:
        with pytest.raises(InputError, match=f"(?i){field} must be") as error:
            GenerateOptions(**{field: value})
        assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_size_must_be_a_multiple_of_8():
    with pytest.raises(InputError, match="multiple of 8, not 130; 128 would do"):
        GenerateOptions(width=130)


@pytest.mark.parametrize("field", ["prompt", "negative"])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x" * (MAX_PROMPT + 1), "10,001 characters; at most 10,000"),
        ("x" * 1_000_000, "1,000,000 characters"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
        (7, "must be text"),
    ],
)
def test_bad_text(field, text, sentence):
    with pytest.raises(InputError, match=sentence):
        GenerateOptions(**{field: text})


def test_prompt_of_the_greatest_length_and_other_scripts():
    assert len(GenerateOptions(prompt="蓝" * MAX_PROMPT).prompt) == MAX_PROMPT


def test_unknown_names_list_what_there_is_closest_first():
    with pytest.raises(InputError, match="no sampler 'eulr'; there is euler,"):
        GenerateOptions(sampler="eulr")
    with pytest.raises(InputError, match="no schedule 'karas'; there is karras,"):
        GenerateOptions(schedule="karas")
    with pytest.raises(InputError, match="no option 'promt'; there is prompt,"):
        GenerateOptions(promt="x")


def test_sampler_and_schedule_must_go_together():
    with pytest.raises(InputError, match="uniform"):
        GenerateOptions(sampler="ddim", schedule="karras")


def test_every_violation_gets_its_sentence():
    with pytest.raises(InputError) as error:
        GenerateOptions(steps=0, cfg=-1, count=99)
    for field in ("Steps", "Cfg", "Count"):
        assert f"{field} must be" in str(error.value)
