"""The limit on what a request draws: it counts every pass, and its sentence names what fits."""

import re

import pytest
from PIL import Image

from demo.events import Refused
from demo.server.work import check_work, count_work
from demo.server.zerogpu import MAX_SECONDS, estimate_seconds
from pipeline import tasks
from pipeline.introspection.arena import parse_entries
from pipeline.options import GenerateOptions

NATIVE = {"width": 512, "height": 512, "steps": 20, "sampler": "euler"}
HUGE = dict(width=2048, height=2048, steps=200, sampler="heun", count=16)


def request(task, **fields):
    if "picture" in tasks.module(task).Options.model_fields:
        fields.setdefault("picture", Image.new("RGB", (512, 512)))
    if task == "inpaint":
        fields.setdefault("left", 512)
    if task == "grid":
        fields = {"x": "steps: 150, 180, 200"} | fields | {"count": 1}
        fields.pop("steps", None)
    return tasks.options(task, **fields)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_a_request_that_takes_hours_is_refused(task):
    options = request(task, **HUGE)
    check_work(0, task, options)
    with pytest.raises(Refused, match="at most 400 are allowed"):
        check_work(400, task, options)


def test_a_branch_and_a_race_are_counted_too():
    check_work(400, "branch", GenerateOptions(steps=20))
    with pytest.raises(Refused):
        check_work(400, "branch", GenerateOptions(**HUGE))
    entries = parse_entries(["Euler", "Heun"])
    check_work(400, "arena", GenerateOptions(steps=20, width=512, height=512), entries)
    with pytest.raises(Refused, match="pixels") as refused:  # the reference takes 200 steps
        check_work(400, "arena", GenerateOptions(steps=2, width=2048, height=2048), entries)
    assert "steps." not in str(refused.value)


REFUSED = {
    "generate": dict(count=16, steps=60),
    "image_to_image": dict(count=16, steps=120),
    "inpaint": dict(count=16, steps=60),
    "hires": dict(scale=4, steps=200),
    "upscale": dict(scale=8, strength=0.9, steps=30),
    "colorize": dict(count=16, steps=100),
    "grid": dict(width=1024, height=1024),
}


@pytest.mark.parametrize("task", tasks.TASKS)
def test_what_the_sentence_names_fits_and_a_little_more_does_not(task):
    options, limit = request(task, **REFUSED[task]), 200
    with pytest.raises(Refused) as refused:
        check_work(limit, task, options, defaults=NATIVE)
    fits = str(refused.value).partition("would fit with ")[2]
    assert fits
    for found in fits.rstrip(".").split(" or "):
        number = [float(n) for n in re.findall(r"[\d.]+", found)]
        if "x" in found:
            width, height = (int(n) for n in number)
            fit, more = (dict(width=width + d, height=height + d) for d in (0, 8))
        else:
            name = next(n for n in ("count", "steps", "scale") if n in found)
            value = number[0] if name == "scale" else int(number[0])
            fit, more = {name: value}, {name: value + (0.1 if name == "scale" else 1)}
        check_work(limit, task, options.model_copy(update=fit), defaults=NATIVE)
        with pytest.raises(Refused):
            check_work(limit, task, options.model_copy(update=more), defaults=NATIVE)


def test_the_sentence_has_both_languages():
    with pytest.raises(Refused) as refused:
        check_work(100, "generate", request("generate", count=16, steps=50))
    english, chinese = (refused.value.sentence(language) for language in ("en", "zh"))
    assert english == str(refused.value) and "7" in english and "210 million" in english
    assert "上限" in chinese and "7 张，或23 步" in chinese


def test_the_seconds_of_a_gpu_follow_the_picture_that_is_enlarged():
    """Options of Enlarge name no size: the picture's is drawn."""
    small, large = (
        estimate_seconds("upscale", request("upscale", picture=Image.new("RGB", size)))
        for size in ((256, 256), (2048, 1536))
    )
    assert small < 20 < 50 < large <= MAX_SECONDS
    assert estimate_seconds("latents", "no options") == 60
    one, two = (estimate_seconds("generate", request("generate", sampler=s, steps=100)) for s in
                ("euler", "heun"))  # fmt: skip
    assert two - 10 == 2 * (one - 10)
    assert count_work("generate", request("generate")) == 512 * 512 * 20
