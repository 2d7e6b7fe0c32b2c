"""High-resolution fix: the same picture, larger."""

import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline import tasks
from pipeline.errors import InputError
from pipeline.metadata import infotext

KEY = "hires"


def draw(models, **fields):
    *steps, result = tasks.stream(models, KEY, tasks.options(KEY, **fields))
    return steps, result


@pytest.mark.parametrize("upscaler", ["lanczos", "latent", "glass"])
def test_both_passes_are_counted_and_told(models, upscaler):
    fields = {"steps": 4, "refine_steps": 6, "strength": 0.5, "seed": 3, "count": 2}
    steps, result = draw(models, prompt="a red apple", upscaler=upscaler, scale=1.5, **fields)
    assert [image.size for image in result.images] == [(96, 96)] * 2
    assert [s.index for s in steps] == [*range(1, 9)] * 2  # four, and the last four of six
    assert {s.total for s in steps} == {8}
    assert [s.image for s in steps] == [0] * 8 + [1] * 8
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(steps))
    assert result.seeds == [3, 4]
    found = infotext.parse(result.parameters[1])
    told = {"Steps": "4", "Size": "64x64", "Seed": "4", "Hires upscale": "1.5"}
    told |= {"Hires steps": "6", "Hires upscaler": upscaler, "Denoising strength": "0.5"}
    assert told.items() <= found.items()


def test_one_of_a_batch_is_the_picture_alone(models):
    fields = {"steps": 3, "strength": 0.4, "upscaler": "lanczos", "sampler": "euler_a"}
    both = draw(models, seed=5, count=2, **fields)[1]
    alone = draw(models, seed=6, **fields)[1]
    assert both.images[1].tobytes() == alone.images[0].tobytes()


@pytest.mark.slow
def test_the_large_picture_is_the_small_one_with_more_in_it(emoji):
    prompt = "a red apple on a blue background"
    small = emoji.generate(prompt=prompt, seed=7, sampler="dpmpp_2m").images[0]
    fields = {"prompt": prompt, "seed": 7, "sampler": "dpmpp_2m", "upscaler": "lanczos"}
    large = draw(emoji, strength=0.1, **fields)[1].images[0]
    assert large.size == (256, 256)
    again = np.asarray(large.resize((128, 128), Image.Resampling.BOX), float)
    before = np.asarray(small, float)
    assert np.abs(again - before).mean() < 12
    assert np.abs(before.mean((0, 1)) - again.mean((0, 1))).max() < 8


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": 5}, "Scale must be a number from 1 to 4, not 5."),
        ({"upscaler": "magic"}, "Upscaler must be one of"),
        ({"refine_steps": 201}, "Refine_steps must be a whole number from 0 to 200, not 201."),
    ],
)
def test_bad_input_is_one_sentence(fields, words):
    with pytest.raises(InputError) as caught:
        tasks.options(KEY, **fields)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_size_beyond_all_measure_is_refused_before_the_first_step(models):
    with pytest.raises(InputError, match=r"makes 8192x8192 pixels of 2048x2048"):
        draw(models, width=2048, height=2048, scale=4)
