"""The engine on a tiny random model: events, batches, cancelling, several users, bad numbers."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline import GenerateOptions, InputError, load
from pipeline.events import Result, Step
from pipeline.samplers import SAMPLERS, unsupported


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


def pixels(result: Result) -> list[np.ndarray]:
    return [np.asarray(image) for image in result.images]


def test_events_come_in_order_and_the_result_last(models):
    events = list(models.stream(GenerateOptions(prompt="a cat", steps=3, seed=1, count=2)))
    *steps, result = events
    assert [(s.image, s.index, s.total, s.count) for s in steps] == [
        (image, index, 3, 2) for image in (0, 1) for index in (1, 2, 3)
    ]
    assert all(isinstance(s, Step) for s in steps) and isinstance(result, Result)
    assert [s.sigma for s in steps[:3]] == sorted((s.sigma for s in steps[:3]), reverse=True)
    assert all(a.seconds <= b.seconds for a, b in pairwise(steps))
    assert result.seeds == [1, 2] and len(result.images) == len(result.parameters) == 2
    assert steps[0].preview.size == result.images[0].size == (64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if not unsupported(s)])
def test_same_options_same_pixels_alone_and_third_of_four(models, sampler):
    fields = {"prompt": "a red apple", "sampler": sampler, "steps": 3}
    alone = models.generate(seed=12, **fields)
    again = models.generate(seed=12, **fields)
    four = models.generate(seed=10, count=4, **fields)
    assert np.array_equal(pixels(alone)[0], pixels(again)[0])
    assert np.array_equal(pixels(alone)[0], pixels(four)[2])
    assert not np.array_equal(pixels(four)[1], pixels(four)[2])
    assert four.parameters[2] == alone.parameters[0]


def test_a_random_seed_is_chosen_and_told(models):
    one, two = (models.generate(prompt="a cat", steps=1) for _ in range(2))
    assert one.seeds != two.seeds
    again = models.generate(prompt="a cat", steps=1, seed=one.seeds[0])
    assert np.array_equal(pixels(one)[0], pixels(again)[0])


def test_prompt_guidance_and_negative_matter(models):
    base = {"prompt": "a red apple", "seed": 3, "steps": 2, "cfg": 4.0}
    latents = models.generate(**base).latents[0]
    for change in ({"prompt": "blue"}, {"cfg": 6.0}, {"negative": "blue"}, {"cfg": 1.0}):
        assert not torch.equal(models.generate(**(base | change)).latents[0], latents)
    assert models.generate(prompt="", seed=3, steps=1).images


def test_a_long_prompt_is_encoded_in_chunks(models):
    from pipeline.prompt.encode import encode_prompts
    from pipeline.prompt.syntax import parse

    long, empty, _ = encode_prompts(models.text, parse("apple " * 80, 1), parse("", 1))
    (context,), (uncond,) = long.contexts, empty.contexts
    assert context.shape == uncond.shape == (1, 154, context.shape[-1])
    first = encode_prompts(models.text, parse("apple " * 75, 1), parse("", 1))[0].contexts[0]
    assert torch.allclose(context[:, :77], first, atol=1e-5)
    assert models.generate(prompt="apple " * 80, steps=1, seed=1).images


def test_two_users_at_once_do_not_touch_each_other(models):
    fields = [{"prompt": "a cat", "seed": 5}, {"prompt": "a dog", "seed": 6, "sampler": "lms"}]
    alone = [models.generate(steps=4, **f).latents[0] for f in fields]
    together = [None, None]

    def draw(i):
        together[i] = models.generate(steps=4, **fields[i]).latents[0]

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_closing_the_stream_stops_between_two_steps(models, monkeypatch, stop_after):
    calls = []
    forward = models.unet.forward
    monkeypatch.setattr(models.unet, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    stream = models.stream(GenerateOptions(steps=5, seed=1, sampler="euler"))
    for _ in range(stop_after):
        next(stream)
    stream.close()
    assert len(calls) == stop_after
    assert models.generate(steps=1, seed=1).images  # and the lock is free


def test_values_that_are_not_finite_end_in_a_sentence(models, monkeypatch):
    forward = models.unet.forward
    monkeypatch.setattr(
        models.unet, "forward", lambda *a, **k: (forward(*a, **k)[0] * float("nan"),)
    )
    with pytest.raises(InputError, match="not finite at step 1"):
        models.generate(steps=2, seed=1)


def test_metadata_names_what_ran(models):
    ran = models.generate(steps=1, seed=1).metadata
    assert (ran["device"], ran["dtype"], ran["attention"]) == ("cpu", "float32", models.attention)


def test_result_saves_one_or_several(models, tmp_path):
    from pipeline.metadata.infotext import parse, read

    result = models.generate(prompt="苹果", steps=1, seed=1, count=2)
    paths = result.save(tmp_path / "a.png")
    assert [p.name for p in paths] == ["a-1.png", "a-2.png"]
    assert parse(read(paths[1]))["Seed"] == "2" and parse(read(paths[0]))["Prompt"] == "苹果"


@pytest.mark.parametrize("text", ["a red apple on a blue background", "蓝色背景上的红苹果"])
def test_word_maps_come_with_each_step_and_change_no_bit(text):
    models = load("emoji", device="cpu")
    options = GenerateOptions(prompt=text, steps=2, seed=1, sampler="euler")
    *steps, result = models.stream(options, words=True)
    shown = steps[0].words
    assert "".join(shown) == text.replace(" ", "")
    for step in steps:
        assert step.maps.shape == (len(shown), 8, 8)  # the finest cross attention of this model
        assert step.maps.min() >= 0 and step.maps.sum(0).max() <= 1 + 1e-4
    assert not torch.equal(steps[0].maps, steps[1].maps)
    plain = models.generate(options)
    assert torch.equal(plain.latents[0], result.latents[0])
    assert next(iter(models.stream(options))).maps is None


def test_words_of_a_long_prompt_stand_in_their_chunks(models):
    step = next(iter(models.stream(GenerateOptions(prompt="red apple " * 60), words=True)))
    assert step.words == ("red", "apple") * 60
    assert len(step.maps) == 120 and step.maps.sum() <= 64 * 1.001
