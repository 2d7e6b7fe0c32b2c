"""Enlarging: the right size, the same picture, no seams, every piece drawn."""

import numpy as np
import pytest
from PIL import Image

from pipeline import load, tasks
from pipeline.errors import InputError
from pipeline.metadata import infotext

KEY = "upscale"


def draw(models, **fields):
    *steps, result = tasks.stream(models, KEY, tasks.options(KEY, **fields))
    return steps, result


@pytest.mark.parametrize("size, scale", [((64, 64), 2), ((65, 41), 2), ((50, 33), 3.3)])
def test_any_size_and_scale(models, colours, size, scale):
    picture = colours(*size)
    fields = {"picture": picture, "scale": scale, "steps": 4, "seed": 2, "upscaler": "lanczos"}
    result = draw(models, **fields)[1]
    assert result.images[0].size == tuple(round(s * scale) for s in size)
    found = infotext.parse(result.parameters[0])
    assert found["Upscale"] == f"{scale:g}" and found["Upscaler"] == "lanczos"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2", "xl"])
def test_the_unet_never_sees_more_than_a_tile(pairs, colours, family):
    models = load(pairs(family).folder, device="cpu")
    seen = []
    hook = models.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    try:
        steps, result = draw(
            models, picture=colours(100, 80), tile=64, overlap=32, steps=2, strength=1, seed=1,
            upscaler="lanczos",
        )  # fmt: skip
    finally:
        hook.remove()
    assert {tuple(shape) for shape in seen} == {(8, 8)}
    assert len(seen) == len(steps) * 6 * 4  # 25 x 20 latents in pieces of 8 that share 4
    assert result.images[0].size == (200, 160)


@pytest.mark.slow
def test_seams_are_not_to_be_seen(emoji):
    """Across the borders of tiles neighbouring pixels differ no more than elsewhere, where tiles
    drawn one by one and laid side by side do."""
    random = np.random.default_rng(4)
    coarse = Image.fromarray(random.integers(60, 196, (4, 4, 3), dtype=np.uint8))
    picture = coarse.resize((128, 128), Image.Resampling.BICUBIC)
    fields = {"prompt": "a red apple on a blue background", "strength": 0.5, "seed": 3}
    fields |= {"upscaler": "lanczos", "sampler": "ddim"}
    whole = draw(emoji, picture=picture, tile=128, overlap=64, **fields)[1].images[0]

    def jump(image):
        """Mean step across the tiles' borders over the mean step between all neighbours."""
        pixels = np.asarray(image, float)
        across = np.abs(np.diff(pixels, axis=1)).mean((0, 2))
        down = np.abs(np.diff(pixels, axis=0)).mean((1, 2))
        at = [63, 127, 191]
        return (across[at].mean() + down[at].mean()) / (across.mean() + down.mean())

    laid = Image.new("RGB", (256, 256))
    for x in (0, 128):
        for y in (0, 128):
            part = picture.resize((256, 256), Image.Resampling.LANCZOS).crop(
                (x, y, x + 128, y + 128)
            )
            asked = fields | {"seed": 3 + x + y, "picture": part, "schedule": "uniform"}
            asked.pop("upscaler")
            options = tasks.options("image_to_image", **asked)
            *_, tile = tasks.stream(emoji, "image_to_image", options)
            laid.paste(tile.images[0], (x, y))
    assert jump(whole) < 1.3
    assert jump(laid) > 1.3


def test_the_picture_stays_itself(emoji):
    picture = emoji.generate(prompt="a red apple on a blue background", seed=7).images[0]
    fields = {"prompt": "a red apple on a blue background", "seed": 1, "upscaler": "lanczos"}
    large = draw(emoji, picture=picture, **fields)[1].images[0]
    small = np.asarray(large.resize((128, 128), Image.Resampling.BOX), float)
    assert np.abs(small - np.asarray(picture, float)).mean() < 10


def test_without_redrawing_it_is_the_upscaler_alone(models, colours):
    picture = colours(40, 30)
    steps, result = draw(models, picture=picture, redraw=False, upscaler="lanczos", scale=3)
    assert steps == []
    expected = picture.resize((120, 90), Image.Resampling.LANCZOS)
    assert result.images[0].tobytes() == expected.tobytes()
    assert "Denoising strength" not in infotext.parse(result.parameters[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": 0.5}, "Scale must be a number from 1 to 8, not 0.5."),
        ({"redraw": "perhaps"}, "Redraw must be true or false, not 'perhaps'."),
        ({"tile": 16}, "Tiles of 16 pixels"),
        ({"tile": 64, "overlap": 64}, "Tiles of 64 pixels cannot overlap by 64"),
    ],
)
def test_bad_input_is_one_sentence(models, colours, fields, words):
    with pytest.raises(InputError) as caught:
        draw(models, picture=colours(64, 64), **fields)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_size_beyond_all_measure_is_refused(models, colours):
    with pytest.raises(InputError, match=r"makes 12000x800 pixels"):
        draw(models, picture=colours(1500, 100), scale=8)
