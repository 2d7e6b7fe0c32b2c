"""Image to image: A1111's steps, diffusers' latents, every size of picture."""

import numpy as np
import pytest
import torch

from pipeline import load, tasks
from pipeline.errors import InputError
from pipeline.events import Result
from pipeline.latents.autoencode import encode_picture
from pipeline.metadata import infotext

KEY = "image_to_image"


def draw(models, **fields):
    events = list(tasks.stream(models, KEY, tasks.options(KEY, **fields)))
    assert isinstance(events[-1], Result)
    return events[:-1], events[-1]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2", "xl"])
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_latents_equal_diffusers(pairs, family, sampler, colours):
    import diffusers

    cls = "StableDiffusionXLImg2ImgPipeline" if family == "xl" else "StableDiffusionImg2ImgPipeline"
    more = {} if family == "xl" else {"safety_checker": None, "requires_safety_checker": False}
    pipe = getattr(diffusers, cls).from_pretrained(
        pairs(family).folder, dtype=torch.float32, local_files_only=True, **more
    )
    pipe.set_progress_bar_config(disable=True)
    if sampler == "euler":
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    models, picture = load(pairs(family).folder, device="cpu"), colours(64, 64)
    ours = draw(
        models,
        picture=picture,
        prompt="a red apple",
        negative="blue",
        sampler=sampler,
        schedule="uniform",
        steps=6,
        cfg=5.0,
        seed=11,
        strength=0.5,
        width=64,
        height=64,
    )[1]
    theirs = pipe(
        "a red apple",
        negative_prompt="blue",
        image=encode_picture(models, picture),
        strength=4 / 6,  # the four last steps of six, as A1111 takes at a half
        num_inference_steps=6,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
    ).images
    assert (ours.latents[0] - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("steps, strength, taken", [(20, 0.75, 16), (20, 0, 1), (1, 0.5, 1)])
def test_steps_are_those_of_a1111(models, colours, steps, strength, taken):
    picture = colours(64, 64)
    events, result = draw(models, picture=picture, steps=steps, strength=strength, seed=1)
    assert [e.index for e in events] == list(range(1, taken + 1))
    assert {e.total for e in events} == {taken}
    found = infotext.parse(result.parameters[0])
    assert found["Denoising strength"] == f"{strength:g}"
    assert found["Steps"] == str(steps)


def test_strength_says_how_much_changes(emoji, colours):
    picture = emoji.generate(prompt="a red apple on a blue background", seed=7).images[0]

    def far(strength):
        asked = {"picture": picture, "prompt": "a fox on a green background", "seed": 1}
        drawn = draw(emoji, strength=strength, **asked)[1].images[0]
        return np.abs(np.asarray(drawn, float) - np.asarray(picture, float)).mean()

    distances = [far(s) for s in (0, 0.3, 0.9)]
    assert distances[0] < distances[2] / 4, distances
    assert distances == sorted(distances)


def test_count_and_size_of_any_picture(models, colours):
    _, result = draw(models, picture=colours(180, 100), steps=2, count=2, seed=4, width=128)
    assert [image.size for image in result.images] == [(128, 72)] * 2
    assert result.seeds == [4, 5]
    assert result.images[0].tobytes() != result.images[1].tobytes()


def test_the_same_twice_and_alone(models, colours):
    fields = {"picture": colours(64, 64), "steps": 3, "sampler": "euler_a", "strength": 0.6}
    both = draw(models, count=2, seed=8, **fields)[1]
    second = draw(models, seed=9, **fields)[1]
    assert both.images[1].tobytes() == second.images[0].tobytes()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "There is no picture: give a picture file."),
        ({"picture": "nowhere.png"}, "nowhere.png"),
        ({"picture": __file__}, "is no PNG, JPEG"),
        ({"strength": 1.5}, "Strength must be a number from 0 to 1, not 1.5."),
        ({"strength": "much"}, "Strength must be a number from 0 to 1, not 'much'."),
        ({"fit": "squeeze"}, "Fit must be one of "),
        ({"mask": "x"}, "There is no option 'mask'"),
    ],
)
def test_bad_input_is_one_sentence(colours, fields, words):
    good = {"picture": colours(64, 64)} if fields and "picture" not in fields else {}
    with pytest.raises(InputError) as caught:
        tasks.options(KEY, **(good | fields))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
