"""Colorization: lightness is kept at every pixel, colours come nearer to the true ones."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipeline import load, tasks
from pipeline.errors import InputError
from pipeline.events import Result
from pipeline.images import lab
from pipeline.latents.preview import Preview
from pipeline.metadata import infotext
from pipeline.samplers.base import Query
from pipeline.tasks.colorize import GUIDANCE, STEPS, lightness_hook

KEY = "colorize"
SCENES = {  # prompt: background, then ellipses as (box, colour)
    "a red apple on a blue background": (
        (66, 121, 219),
        [((24, 30, 104, 116), (210, 40, 50)), ((60, 14, 90, 34), (70, 160, 60))],
    ),
    "an orange on a purple background": (
        (136, 88, 196),
        [((20, 24, 108, 112), (250, 150, 40)), ((58, 12, 88, 30), (60, 150, 60))],
    ),
    "粉色背景上的青苹果": (
        (246, 166, 196),
        [((24, 30, 104, 116), (120, 190, 50)), ((60, 14, 66, 36), (110, 70, 40))],
    ),
    "a frog on a yellow background": (
        (250, 219, 94),
        [
            ((18, 30, 110, 112), (90, 170, 70)),
            ((26, 16, 56, 46), (90, 170, 70)),
            ((72, 16, 102, 46), (90, 170, 70)),
        ],
    ),
}


def scene(prompt):
    ground, parts = SCENES[prompt]
    image = Image.new("RGB", (128, 128), ground)
    for box, fill in parts:
        ImageDraw.Draw(image).ellipse(box, fill=fill)
    return image


def draw(models, **fields):
    events = list(tasks.stream(models, KEY, tasks.options(KEY, **fields)))
    assert isinstance(events[-1], Result)
    return events[:-1], events[-1]


def off(made, given):
    """How far L* is from the given picture's, at worst."""
    return np.abs(lab.to_lab(made) - lab.to_lab(given))[..., 0].max()


@pytest.mark.slow
def test_colours_come_nearer_to_the_true_ones(emoji):
    """Mean CIEDE2000 of four scenes, English and Chinese, against leaving them grey."""
    coloured, left = [], []
    for prompt in SCENES:
        true = scene(prompt)
        grey = lab.grey(true)
        made = draw(emoji, picture=grey, prompt=prompt, seed=1)[1].images[0]
        assert off(made, grey) <= 0.5
        truth = lab.to_lab(true)
        coloured.append(lab.delta_e2000(lab.to_lab(made), truth).mean())
        left.append(lab.delta_e2000(lab.to_lab(grey), truth).mean())
    assert np.mean(coloured) < 0.75 * np.mean(left)
    assert sum(c < g for c, g in zip(coloured, left, strict=True)) >= 3


@pytest.mark.parametrize(
    "size", [(64, 64), (61, 83), (8, 8), (300, 20), (500, 310)], ids=lambda s: f"{s[0]}x{s[1]}"
)
def test_every_size_comes_back_with_its_lightness(models, colours, size):
    """Grey pictures and coloured ones: what counts of a coloured one is its lightness."""
    given = colours(*size, seed=size[0])
    for picture in (given, lab.grey(given)):
        made = draw(models, picture=picture, prompt="a cat", seed=2, steps=2)[1].images[0]
        assert made.size == size and off(made, picture) <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["xl"])
def test_other_families_colour(pairs, family, colours):
    models = load(pairs(family).folder, device="cpu")
    picture = colours(72, 64)
    events, result = draw(
        models, picture=picture, prompt="a cat", seed=2, steps=3, width=64, height=64
    )
    assert [e.index for e in events] == [1, 2, 3]
    assert result.images[0].size == (72, 64) and off(result.images[0], picture) <= 0.5
    assert np.abs(lab.to_lab(result.images[0])[..., 1:]).max() > 3


def test_a_coloured_picture_is_not_looked_at_but_for_its_lightness(models, colours):
    """Every other colouring of the same lightness draws the same latents."""
    grey = lab.grey(colours(64, 64))
    other = lab.recolour(grey, colours(64, 64, seed=5))
    same = {"prompt": "a cat", "seed": 3, "steps": 2}
    first, second = (draw(models, picture=p, **same)[1].latents[0] for p in (grey, other))
    told = draw(models, picture=colours(64, 64, seed=9), **same)[1].latents[0]
    assert (first - second).abs().mean() < 0.2 * (first - told).abs().mean()


def test_less_strength_takes_fewer_steps_and_other_seeds_other_colours(models, colours):
    picture = colours(64, 64)
    events, result = draw(
        models, picture=picture, prompt="a cat", seed=4, steps=4, strength=0.5, count=2
    )
    assert [(e.image, e.index, e.total) for e in events] == [
        (0, 1, 3),
        (0, 2, 3),
        (0, 3, 3),
        (1, 1, 3),
        (1, 2, 3),
        (1, 3, 3),
    ]
    assert result.seeds == [4, 5]
    assert not np.array_equal(*(np.asarray(i) for i in result.images))
    again = draw(models, picture=picture, prompt="a cat", seed=5, steps=4, strength=0.5)[1]
    assert np.array_equal(np.asarray(again.images[0]), np.asarray(result.images[1]))
    read = infotext.parse(result.parameters[0])
    assert read["Denoising strength"] == "0.5"


def test_guidance_and_steps_are_less_than_the_models_own_unless_they_are_given(models, colours):
    asked = {"picture": colours(64, 64), "seed": 4}
    usual = models.defaults
    taken = draw(models, **asked)[1].options
    assert taken.cfg == max(1, GUIDANCE * usual["cfg"]) < usual["cfg"]
    assert taken.steps == round(STEPS * usual["steps"]) < usual["steps"]
    taken = draw(models, cfg=3, steps=1, **asked)[1].options
    assert (taken.cfg, taken.steps) == (3, 1)


def test_the_lightness_is_the_greys_and_nothing_else_moves():
    """Against the map's own pictures: their luma is the grey's, and the move is the shortest."""
    preview = Preview(torch.randn(4, 3), torch.randn(3))
    grey, clean = torch.randn(2, 1, 4, 6, 5).unbind()
    asked = Query(clean, torch.tensor(1), 0, 1.0)
    moved = lightness_hook(preview, grey)(asked, clean)

    def luma(latents):
        rgb = torch.einsum("bchw,cd->bdhw", latents, preview.weight)
        return 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]

    assert torch.allclose(luma(moved), luma(grey), atol=1e-4)
    assert not torch.allclose(luma(clean), luma(grey), atol=0.1)
    steps = (moved - clean).flatten(2)[0]  # (C, places): along one direction at every place
    assert torch.linalg.matrix_rank(steps, rtol=1e-4) == 1
    assert torch.allclose(lightness_hook(preview, grey)(asked, moved), moved, atol=1e-4)


def test_a_preview_that_sees_no_lightness_moves_nothing():
    clean = torch.randn(1, 4, 3, 3)
    x0_hook = lightness_hook(Preview(torch.zeros(4, 3), torch.zeros(3)), torch.randn(1, 4, 3, 3))
    assert torch.equal(x0_hook(None, clean), clean)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "There is no picture: give a picture file."),
        ({"picture": "/nowhere/grey.png"}, "grey.png does not exist."),
        ({"strength": 2}, "Strength must be a number from 0 to 1, not 2."),
        ({"cfg": 31}, "Cfg must be a number from 0 to 30, not 31."),
        ({"colour": "red"}, "There is no option 'colour'"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(fields, said, colours):
    given = fields if "picture" in fields or not fields else {"picture": colours(64, 64)} | fields
    with pytest.raises(InputError) as error:
        tasks.options(KEY, **given)
    assert said in str(error.value)
