"""A tree of recordings goes into a file and comes back; what is no such file gets one sentence."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline import GenerateOptions, InputError, load, tasks
from pipeline.introspection.branch import BranchRun
from pipeline.introspection.recording import Recorder
from pipeline.introspection.recording_file import open_tree, save


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


def gone_on(models, recording, step, **changes):
    recorder = BranchRun(models, recording, step, changes)
    *_, result = recorder
    return result, recorder.recordings[0]


@pytest.fixture(scope="module")
def tree(models):
    """A picture, a branch of it, a branch of that with another sampler."""
    asked = GenerateOptions(prompt="a red apple", seed=4, steps=5, cfg=3.0, sampler="euler_a")
    recorder = Recorder(models, models.stream(asked, words=True))
    list(recorder)
    _, one = gone_on(models, recorder.recordings[0], 2, prompt="blue apple", noise_seed=8)
    _, two = gone_on(models, one, 3, sampler="dpmpp_2m")
    return [recorder.recordings[0], one, two]


@pytest.fixture
def file(tree, tmp_path):
    return save(tree, tmp_path / "tree.safetensors")


def test_it_comes_back_as_it_was_and_is_gone_on_from(models, tree, file):
    opened = open_tree(file)
    assert [r.parent for r in opened] == [None, opened[0].key, opened[1].key]
    assert not {r.key for r in opened} & {r.key for r in tree}
    for old, new in zip(tree, opened, strict=True):
        assert new.options == old.options and new.model == old.model
        assert new.parameters == old.parameters and new.change == old.change
        assert np.array_equal(np.asarray(new.image), np.asarray(old.image))
        assert len(new.calls) == len(old.calls) and new.parent_calls == old.parent_calls
        for a, b in zip(old.calls, new.calls, strict=True):
            assert (a.step, a.t, a.sigma, a.words) == (b.step, b.t, b.sigma, b.words)
            for x, y in ((a.latents, b.latents), (a.answer.cond, b.answer.cond), (a.maps, b.maps)):
                assert torch.equal(x, y)
        for step in (old.change.get("at", 0), old.steps - 1):
            again, _ = gone_on(models, new, step)
            assert torch.equal(again.latents[0], old.final)


def test_a_picture_that_began_from_another_is_looked_at_but_not_gone_on_from(models, tmp_path):
    (path,) = models.generate(prompt="red", seed=1, steps=1).save(tmp_path / "a.png")
    mask = tmp_path / "mask.png"
    from PIL import Image

    Image.new("L", (64, 64), 255).save(mask)
    asked = tasks.options(
        "inpaint", picture=str(path), mask=str(mask), prompt="blue", strength=0.9, steps=3
    )
    recorder = Recorder(models, tasks.stream(models, "inpaint", asked, words=True))
    list(recorder)
    (opened,) = open_tree(save(recorder.recordings, tmp_path / "t.safetensors"))
    assert torch.equal(opened.calls[1].clean, recorder.recordings[0].calls[1].clean)
    with pytest.raises(InputError, match="began from another one"):
        BranchRun(models, opened, 1, {})


def test_a_branch_alone_cannot_be_saved(tree, tmp_path):
    with pytest.raises(InputError, match="without the picture it is a branch of"):
        save(tree[1:], tmp_path / "t.safetensors")
    with pytest.raises(InputError, match="Cannot write"):
        save(tree, tmp_path / "no folder" / "t.safetensors")


def rewritten(file, change):
    """The file with another header, or other tensors: `change(header, tensors)`."""
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["tree"])
    tensors = load_file(file)
    change(header, tensors)
    save_file(tensors, file, {"tree": json.dumps(header)})


DAMAGE = {
    "newer": (lambda h, t: h.update(version=9), "is of version 9"),
    "foreign": (lambda h, t: h.update(kind="else"), "is no tree"),
    "empty": (lambda h, t: h.update(recordings=[]), "no recordings"),
    "many": (lambda h, t: h.update(recordings=h["recordings"] * 40), "too many"),
    "no options": (lambda h, t: h["recordings"][0]["options"].clear(), "options are missing"),
    "steps": (lambda h, t: h["recordings"][0]["options"].update(steps=1e9), "whole number"),
    "level": (lambda h, t: h["recordings"][0]["calls"][1].__setitem__(2, float("nan")), "level"),
    "order": (lambda h, t: h["recordings"][0]["calls"][0].__setitem__(0, 3), "out of order"),
    "parent": (lambda h, t: h["recordings"][1].update(parent="x"), "damaged"),
    "seed": (lambda h, t: h["recordings"][0].update(seeds=[-1, None]), "whole number"),
    "words": (lambda h, t: h["recordings"][0]["words"][0].append("x"), "word maps"),
    "gone": (lambda h, t: t.pop("0.1.latents"), "latents is missing"),
    "shape": (lambda h, t: t.update({"0.1.clean": torch.zeros(1, 4, 2, 2)}), "another shape"),
    "type": (lambda h, t: t.update({"0.final": torch.zeros(1, 4, 8, 8).half()}), "another shape"),
    "nan": (lambda h, t: t["0.0.output"].fill_(float("nan")), "not finite"),
    "png": (lambda h, t: t.update({"0.png": torch.zeros(50, dtype=torch.uint8)}), "damaged"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_what_is_damaged_gets_one_sentence(how, file):
    change, words = DAMAGE[how]
    rewritten(file, change)
    with pytest.raises(InputError, match=words) as said:
        open_tree(file)
    assert str(said.value).count("\n") == 0 and str(said.value).endswith(".")


def test_other_files_get_one_sentence(tmp_path, tiny_model):
    weights = next((tiny_model / "unet").glob("*.safetensors"))
    for path, data in (("a", b""), ("b", b"\x80\x02junk" * 9), ("c", b"\xff" * 64)):
        (tmp_path / f"{path}.safetensors").write_bytes(data)
        with pytest.raises(InputError):
            open_tree(tmp_path / f"{path}.safetensors")
    with pytest.raises(InputError, match="is no tree"):
        open_tree(weights)
    with pytest.raises(InputError):
        open_tree(tmp_path / "none.safetensors")
