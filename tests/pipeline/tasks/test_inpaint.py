"""Inpainting: outside the mask nothing changes by a bit, inside stands what was asked for."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipeline import load, tasks
from pipeline.errors import InputError
from pipeline.images import masks
from pipeline.metadata import infotext
from pipeline.samplers import SAMPLERS, unsupported

KEY = "inpaint"


def draw(models, **fields):
    *_, result = tasks.stream(models, KEY, tasks.options(KEY, **fields))
    return result


def circle(size, box):
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


def random_mask(size, seed):
    random = np.random.default_rng(seed)
    field = random.integers(0, 256, (6, 6), dtype=np.uint8)
    return Image.fromarray(field).resize(size, Image.Resampling.BICUBIC)


def differs(a, b):
    """(H, W): where two pictures differ."""
    return (np.asarray(a) != np.asarray(b)).any(-1)


@pytest.mark.parametrize("area", ["whole", "masked"])
@pytest.mark.parametrize("size", [(64, 64), (203, 97), (61, 150)])
def test_outside_the_mask_every_bit_stays(models, colours, size, area):
    picture, mask = colours(*size, seed=size[0]), random_mask(size, size[1])
    result = draw(models, picture=picture, mask=mask, area=area, steps=3, seed=5, mask_blur=3)
    outside = np.asarray(mask) < 128
    changed = differs(result.images[0], picture)
    assert result.images[0].size == size
    assert not changed[outside].any()
    assert changed[~outside].mean() > 0.7


@pytest.mark.parametrize("sampler", [key for key in SAMPLERS if not unsupported(key)])
def test_latents_outside_stay_with_every_sampler(models, colours, sampler):
    """Before pixels are put back: what the sampler returns is the picture's there."""
    from pipeline.latents.autoencode import encode_picture

    picture, mask = colours(64, 64), circle((64, 64), (8, 8, 40, 40))
    fields = {"picture": picture, "mask": mask, "prompt": "a red apple", "seed": 2, "cfg": 4}
    result = draw(models, **fields, sampler=sampler, steps=6)
    kept = encode_picture(models, picture)
    outside = torch.zeros(8, 8, dtype=torch.bool)
    outside[6:], outside[:, 6:] = True, True
    low = 0.2 if sampler in ("ddim", "ddim_cfgpp", "plms", "deis", "tcd") else 1e-3
    assert (result.latents[0] - kept)[..., outside].abs().max() < low
    assert (result.latents[0] - kept)[..., 1:5, 1:5].abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fox", "penguin"])
def test_what_was_asked_for_is_inside(emoji, rank, name):
    picture = emoji.generate(prompt="a red apple on a blue background", seed=7).images[0]
    mask = circle((128, 128), (8, 8, 120, 120))
    prompt = f"a {name} on a blue background"
    result = draw(emoji, picture=picture, mask=mask, prompt=prompt, seed=1)
    before = rank(picture, name, "blue")
    after = rank(result.images[0], name, "blue")
    assert after < 10 < before
    assert not differs(result.images[0], picture)[np.asarray(mask) < 128].any()


def test_only_masked_draws_the_part_alone_at_full_size(models, colours):
    """Of half a megapixel only the surroundings of a small hole are drawn, at the model's size."""
    picture, mask = colours(800, 600), circle((800, 600), (400, 300, 440, 330))
    result = draw(models, picture=picture, mask=mask, area="masked", padding=8, steps=2, seed=1)
    assert result.latents[0].shape[-2:] == (8, 8)
    found = infotext.parse(result.parameters[0])
    assert found["Inpaint area"] == "Only masked"
    assert found["Masked area padding"] == "8"
    assert not differs(result.images[0], picture)[np.asarray(mask) < 128].any()


@pytest.mark.parametrize("size", [(128, 64), (64, 128)])
def test_only_masked_draws_a_part_of_the_drawing_s_shape(models, colours, monkeypatch, size):
    boxes = []
    padded_box = masks.padded_box
    monkeypatch.setattr(
        masks, "padded_box", lambda *args: boxes.append(padded_box(*args)) or boxes[-1]
    )
    picture, mask = colours(400, 400), circle((400, 400), (180, 180, 220, 220))
    width, height = size
    draw(models, picture=picture, mask=mask, area="masked", steps=1, width=width, height=height)
    ((left, top, right, bottom),) = boxes
    assert (right - left) / (bottom - top) == pytest.approx(width / height, abs=0.05)


def test_painting_on_beyond_the_edges(models, colours):
    picture = colours(64, 40)
    result = draw(models, picture=picture, left=16, bottom=24, steps=3, seed=1)
    whole = result.images[0]
    assert whole.size == (80, 64)
    assert whole.crop((16, 0, 80, 40)).tobytes() == picture.tobytes()
    assert infotext.parse(result.parameters[0])["Outpaint"] == "16, 0, 0, 24"


def test_a_mask_and_margins_together(models, colours):
    picture, mask = colours(64, 64), circle((64, 64), (20, 20, 40, 40))
    whole = draw(models, picture=picture, mask=mask, right=16, steps=3, seed=1).images[0]
    changed = differs(whole.crop((0, 0, 64, 64)), picture)
    assert not changed[np.asarray(mask) < 128].any() and changed.any()


@pytest.mark.parametrize("fill", ["original", "fill", "noise"])
def test_what_stands_under_the_mask_matters_at_low_strength(models, colours, fill):
    fields = {"picture": colours(64, 64), "mask": circle((64, 64), (8, 8, 56, 56))}
    plain, other = (
        draw(models, **fields, strength=0.2, steps=10, seed=3, fill=f).images[0]
        for f in ("original", fill)
    )
    assert (plain.tobytes() == other.tobytes()) == (fill == "original")


@pytest.fixture(scope="module")
def hollow(tiny_model, tmp_path_factory):
    """The tiny model with a UNet for inpainting: nine channels."""
    import json
    import shutil

    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder = tmp_path_factory.mktemp("hollow") / "hollow"
    shutil.copytree(tiny_model, folder)
    config = UNet2DConditionModel.load_config(folder / "unet")
    torch.manual_seed(3)
    UNet2DConditionModel.from_config(config | {"in_channels": 9}).save_pretrained(folder / "unet")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():  # a posterior so narrow that drawing from it gives its mean
        vae.quant_conv.weight[4:], vae.quant_conv.bias[4:] = 0, -30
    vae.save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionInpaintPipeline", "_diffusers_version": "0.42.0"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_an_inpainting_checkpoint_sees_what_diffusers_shows_it(hollow, colours):
    import diffusers

    seen = []
    models = load(hollow, device="cpu")
    pipe = diffusers.StableDiffusionInpaintPipeline.from_pretrained(
        hollow, local_files_only=True, safety_checker=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    picture, mask = colours(64, 64), Image.new("L", (64, 64))
    mask.paste(255, (8, 16, 40, 48))
    for unet in (models.unet, pipe.unet):
        unet.register_forward_pre_hook(lambda _, args, **more: seen.append(args[0]))
    result = draw(models, picture=picture, mask=mask, steps=2, seed=4, prompt="a red apple", cfg=3)
    ours, count = seen[0], len(seen)
    pipe(
        "a red apple",
        image=picture,
        mask_image=mask,
        height=64,
        width=64,
        num_inference_steps=2,
        strength=1.0,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(4),
        output_type="latent",
    )
    theirs = seen[count]
    assert ours.shape == theirs.shape == (2, 9, 8, 8)
    assert torch.equal(ours[:, 4], theirs[:, 4])
    assert (ours[:, :4] - theirs[:, :4]).abs().max() < 0.2  # a picture's trace in the first noise
    assert torch.allclose(ours[:, 5:], theirs[:, 5:], atol=1e-4)
    assert not differs(result.images[0], picture)[np.asarray(mask) < 128].any()


def test_an_inpainting_checkpoint_draws_from_words_alone(hollow):
    models = load(hollow, device="cpu")
    picture = models.generate(prompt="a red apple", steps=2, seed=1).images[0]
    assert picture.size == (64, 64)
    assert np.asarray(picture).std() > 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "There is nothing to repaint: give a mask"),
        ({"mask": Image.new("L", (32, 64), 255)}, "32 x 64"),
        ({"mask": Image.new("L", (64, 64))}, "The mask is empty"),
        ({"mask": "/dev/null"}, "mask"),
        ({"left": 1025}, "Left must be a whole number from 0 to 1024, not 1025."),
        ({"left": 8, "strength": -1}, "Strength must be a number from 0 to 1"),
        ({"left": 8, "fill": "gold"}, "Fill must be one of"),
        ({"left": 8, "area": "half"}, "Area must be one of"),
        ({"left": 8, "mask_blur": "x"}, "Mask_blur must be a whole number"),
    ],
)
def test_bad_input_is_one_sentence(colours, fields, words):
    with pytest.raises(InputError) as caught:
        tasks.options(KEY, picture=colours(64, 64), **fields)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
