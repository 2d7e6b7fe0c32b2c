"""Branches on a tiny random model: continued to the bit, changed, refused, drawn again."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline import GenerateOptions, InputError, load, tasks
from pipeline.events import Result
from pipeline.introspection.branch import CHANGES, BranchRun, ReplayRun
from pipeline.introspection.recording import Recorder
from pipeline.samplers import SAMPLERS, unsupported

ABLE = [s for s in SAMPLERS if not unsupported(s)]
FRESH = ["euler_a", "ddpm", "dpm2_a", "dpmpp_2s_a", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde"]


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


def record(models, **fields):
    """The Result and the recordings of a request."""
    fields = {"prompt": "a red apple", "seed": 5, "steps": 6, "cfg": 3.0} | fields
    recorder = Recorder(models, models.stream(GenerateOptions(**fields), words=True))
    *_, result = recorder
    return result, recorder.recordings


def branch(models, recording, step, **changes):
    recorder = BranchRun(models, recording, step, changes)
    *steps, result = recorder
    return result, recorder.recordings[0], steps


def pixels(result):
    return np.asarray(result.images[0])


@pytest.mark.parametrize("sampler", ABLE)
def test_resumed_without_a_change_it_is_the_same_picture(models, sampler):
    whole, (recording,) = record(models, sampler=sampler)
    calls = len(recording.calls)
    for step in (1, 4):
        result, again, steps = branch(models, recording, step)
        assert np.array_equal(pixels(result), pixels(whole)), step
        assert torch.equal(result.latents[0], whole.latents[0])
        assert len(again.calls) == calls and again.parent_calls == calls - len(steps) > 0
        assert again.parent == recording.key and again.change["at"] == step
    # and from the middle of what was resumed
    result, third, _ = branch(models, again, 2)
    assert torch.equal(result.latents[0], whole.latents[0]) and third.parent == again.key


def test_a_step_that_is_resumed_costs_no_call_of_the_model(models, monkeypatch):
    _, (recording,) = record(models, sampler="dpmpp_2m")
    calls = []
    inner = models.unet.forward
    monkeypatch.setattr(models.unet, "forward", lambda *a, **k: calls.append(1) or inner(*a, **k))
    branch(models, recording, 4)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a blue apple"}, {"negative": "red"}, {"cfg": 6.0}, {"cfg_rescale": 0.7}],
    ids=lambda c: next(iter(c)),
)
def test_a_changed_word_or_guidance_changes_what_follows_alone(models, change):
    whole, (recording,) = record(models, sampler="dpmpp_2m")
    result, made, steps = branch(models, recording, 3, **change)
    assert torch.equal(steps[0].latents, recording.first_call(3).latents)  # where it goes on
    assert not torch.equal(result.latents[0], whole.latents[0])
    assert made.calls[:3] == recording.calls[:3]
    name, value = next(iter(change.items()))
    assert getattr(made.options, name) == value and made.change == {"at": 3, name: value}
    assert "Branch step: 4" in result.parameters[0]


@pytest.mark.parametrize("sampler", [s for s in FRESH if s in ABLE])
def test_another_seed_of_the_noise_changes_the_noise_that_follows(models, sampler):
    whole, (recording,) = record(models, sampler=sampler)
    result, made, steps = branch(models, recording, 2, noise_seed=77)
    assert torch.equal(steps[0].latents, recording.first_call(2).latents)
    assert not torch.equal(result.latents[0], whole.latents[0])
    again, _, _ = branch(models, recording, 2, noise_seed=77)
    assert torch.equal(again.latents[0], result.latents[0])
    # Gone on from, before and after: the noise that was chosen stays.
    for step in (2, 4):
        kept, _, _ = branch(models, made, step)
        assert torch.equal(kept.latents[0], result.latents[0])
    back, _, _ = branch(models, made, 1)
    assert torch.equal(back.latents[0], whole.latents[0])


@pytest.mark.parametrize(("old", "new"), [("euler", s) for s in ABLE if s != "euler"])
def test_another_sampler_goes_on_from_the_latents(models, old, new):
    """Its first query has the picture and the noise that were there, at a level of its own."""
    _, (recording,) = record(models, sampler=old, steps=6)
    call = recording.first_call(4)
    result, made, steps = branch(models, recording, 4, sampler=new)
    sigma = steps[0].sigma
    alpha = 1 / math.sqrt(1 + sigma**2)
    expected = alpha * call.clean + sigma * alpha * call.noise
    assert torch.allclose(steps[0].latents, expected, atol=1e-4)
    # No other step of that sampler begins nearer.
    own = [m.sigma for m in record(models, sampler=new, steps=6)[1][0].calls]
    gaps = [abs(math.log(s / call.sigma)) for s in own if s > 0]
    assert abs(math.log(sigma / call.sigma)) <= min(gaps) + 1e-4 or SAMPLERS[new].calls > 1
    assert torch.isfinite(result.latents[0]).all()
    assert made.sampler_start == 4 and [m.step for m in made.calls][:5] == [0, 1, 2, 3, 4]
    # And what comes of it is gone on from as any other.
    kept, _, _ = branch(models, made, made.steps - 1)
    assert torch.equal(kept.latents[0], result.latents[0])


def test_branches_of_a_batch_are_of_the_picture_that_was_meant(models):
    whole, recordings = record(models, count=3, sampler="euler_a")
    result, _, _ = branch(models, recordings[2], 3)
    assert torch.equal(result.latents[0], whole.latents[2]) and result.seeds == [7]


def test_the_pictures_of_a_task_are_recorded_and_branched(models, tmp_path):
    made = models.generate(prompt="a red apple", seed=3, steps=2)
    (path,) = made.save(tmp_path / "a.png")
    asked = tasks.options(
        "image_to_image", picture=str(path), prompt="blue", strength=0.6, steps=6, seed=1
    )
    recorder = Recorder(models, tasks.stream(models, "image_to_image", asked, words=True))
    *_, whole = recorder
    result, _, _ = branch(models, recorder.recordings[0], 2)
    assert torch.equal(result.latents[0], whole.latents[0])
    asked = tasks.options("hires", prompt="red", steps=3, seed=1, scale=1.5, strength=0.7)
    recorder = Recorder(models, tasks.stream(models, "hires", asked, words=True))
    *_, whole = recorder
    (recording,) = recorder.recordings  # of the pass that made the picture
    assert recording.calls[0].latents.shape == whole.latents[0].shape
    result, _, _ = branch(models, recording, 1)
    assert torch.equal(result.latents[0], whole.latents[0])
    asked = tasks.options("grid", prompt="red", steps=2, seed=1, x="seed: 1, 2", y="cfg: 1, 4")
    recorder = Recorder(models, tasks.stream(models, "grid", asked, words=True))
    *_, whole = recorder
    for recording, latents, image in zip(
        recorder.recordings, whole.latents, whole.images[1:], strict=True
    ):
        assert torch.equal(recording.final, latents) and recording.image is image


def test_what_cannot_be_is_said_in_one_sentence(models):
    _, (recording,) = record(models, steps=3)
    for step, changes, words in (
        (3, {}, "There is no step 4: this picture has the steps 1 to 3"),
        (-1, {}, "There is no step 0"),
        (0.5, {}, "A step is a whole number"),
        ("one", {}, "A step is a whole number"),
        (1, {"cfg": 99}, "Cfg must be a number from 0 to 30"),
        (1, {"sampler": "eulr"}, "there is no sampler 'eulr'"),
        (1, {"noise_seed": -4}, "Noise_seed must be a whole number"),
        (1, {"size": 4}, "A branch cannot change size"),
        (1, {"sampler": "lcm", "schedule": "karras"}, "does not take the schedule"),
    ):
        with pytest.raises(InputError, match=f"(?i){words}"):
            BranchRun(models, recording, step, changes)
    other = type(models)(**(vars(models) | {"hash": "0000000000"}))
    with pytest.raises(InputError, match="was drawn by"):
        BranchRun(other, recording, 1, {})


def test_a_sampler_that_cannot_begin_there_is_refused_and_one_that_can_is_offered(
    models, monkeypatch
):
    _, (recording,) = record(models, steps=3)
    monkeypatch.setattr(
        "pipeline.samplers.unsupported", lambda n: "LMS needs scipy." if n == "lms" else None
    )
    with pytest.raises(InputError, match=r"LMS needs scipy\. Euler can begin here\."):
        BranchRun(models, recording, 1, {"sampler": "lms"})


def test_every_change_is_offered_and_none_is_no_change(models):
    whole, (recording,) = record(models)
    result, made, _ = branch(models, recording, 2, **dict.fromkeys(CHANGES))
    assert torch.equal(result.latents[0], whole.latents[0]) and made.change == {"at": 2}


def test_a_branch_of_a_branch_tells_the_whole_way(models):
    _, (root,) = record(models, sampler="euler_a", steps=5)
    _, one, _ = branch(models, root, 1, prompt="blue")
    _, two, _ = branch(models, one, 3, sampler="heun", noise_seed=9)
    first, *rest = two.origin.initial_state.lineage
    assert GenerateOptions(**first) == root.options
    assert rest == [{"at": 1, "prompt": "blue"}, {"at": 3, "sampler": "heun", "noise_seed": 9}]
    with pytest.raises(InputError, match="of the picture that this is a branch of"):
        BranchRun(models, two, 2, {})
    assert all(a.step <= b.step for a, b in itertools.pairwise(two.calls))


def test_a_branch_is_made_again_from_its_lineage_alone(models):
    _, (root,) = record(models, sampler="euler_a", steps=5)
    _, one, _ = branch(models, root, 1, prompt="blue")
    _, two, _ = branch(models, one, 3, sampler="heun", noise_seed=9)
    recorder = ReplayRun(models, two.origin.initial_state.lineage, key="kept", parent=one.key)
    *steps, result = recorder
    (made,) = recorder.recordings
    assert torch.equal(made.final, two.final) and torch.equal(result.latents[0], two.final)
    assert (made.key, made.parent, made.sampler_start) == ("kept", one.key, 3)
    assert not [s for s in steps if isinstance(s, Result)]  # the Results on the way are nobody's
    events = ReplayRun(models, two.origin.initial_state.lineage)
    running = iter(events)
    next(running)
    running.close()
    assert events.events.gi_frame is None
