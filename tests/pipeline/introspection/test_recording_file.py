"""A tree of recordings goes into a file and comes back; what is no such file gets one sentence."""

import io
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline import GenerateOptions, InputError, load, tasks
from pipeline.images.gate import DecodingGate
from pipeline.introspection import recording_file
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


def branch(**more):
    """A change of the JSON of the first branch, the second picture in the file."""
    return lambda h, t: h["recordings"][1].update(more)


def lineage(number, /, **more):
    return lambda h, t: h["recordings"][number]["lineage"][-1].update(more)


# Each field is one that an export may have; together no export has them.
CONTRADICTIONS = {
    "size": lambda h, t: h["recordings"][0]["options"].update(width=128),
    "picture": lambda h, t: t.update({"0.png": png(96, 64)}),
    "steps": lambda h, t: h["recordings"][0]["options"].update(steps=9),
    "first step": lambda h, t: [c.__setitem__(0, c[0] + 1) for c in h["recordings"][0]["calls"]],
    "gap": lambda h, t: h["recordings"][0]["calls"][-1].__setitem__(0, 7),
    "calls": lambda h, t: [c.__setitem__(0, 1) for c in h["recordings"][0]["calls"][2:]],
    "shared calls": branch(before=1),
    "no own calls": branch(before=5),
    "sampler start": branch(first=1),
    "seeds": branch(seeds=[5, None]),
    "variation": lambda h, t: [r.update(seeds=[4, 9]) for r in h["recordings"]],
    "large seed": lambda h, t: [r.update(seeds=[2**35, None]) for r in h["recordings"]],
    "reseeds": branch(reseeds=[]),
    "prediction": branch(prediction="v_prediction"),
    "model": branch(model=["x", "y", None]),
    "branch's options": lambda h, t: h["recordings"][1]["options"].update(cfg=7.0),
    "root with a lineage": lambda h, t: h["recordings"][0].update(lineage=[{}]),
    "no lineage": branch(lineage=[]),
    "another root": lambda h, t: h["recordings"][2]["lineage"][0].update(seed=5),
    "step of the change": lineage(1, at=4),
    "step that is none": lineage(1, at="2"),
    "unknown change": lineage(1, width=64),
    "alias in a change": lineage(2, sampler="DPM++ 2M"),
    "same key": branch(key="0"),
    "begin": lambda h, t: h["recordings"][0].update(begin=3),
    "maps": lambda h, t: t.update({"0.1.maps": t["0.1.maps"][:, :-1].contiguous()}),
    "no maps": lambda h, t: t.pop("0.1.maps"),
    "maps of nothing": lambda h, t: t["0.1.maps"].fill_(float("inf")),
    "large numbers": lambda h, t: t["0.1.latents"].fill_(1e30),
    "timestep": lambda h, t: h["recordings"][0]["calls"][0].__setitem__(1, -1e300),
}


def png(width, height):
    data = io.BytesIO()
    Image.new("RGB", (width, height)).save(data, "PNG")
    return torch.frombuffer(bytearray(data.getvalue()), dtype=torch.uint8)


@pytest.mark.parametrize("how", CONTRADICTIONS)
def test_a_tree_is_checked_as_a_whole(how, file):
    if how == "same key":
        with safe_open(file, "pt") as opened:
            first = json.loads(opened.metadata()["tree"])["recordings"][0]["key"]
        rewritten(file, branch(key=first))
    else:
        rewritten(file, CONTRADICTIONS[how])
    with pytest.raises(InputError, match="is damaged"):
        open_tree(file)


def test_the_picture_of_a_tree_has_the_limits_of_every_picture(file, monkeypatch):
    rewritten(file, lambda h, t: t.update({"0.png": png(9000, 8000)}))
    with pytest.raises(InputError, match="50,000,000"):
        open_tree(file)
    gate = DecodingGate(budget=100, at_once=1, patience=0)
    monkeypatch.setattr(recording_file, "GATE", gate)
    holder = threading.Thread(target=lambda: gate._enter(1))
    holder.start()
    holder.join()
    with pytest.raises(InputError, match="try again"):
        open_tree(file)


def test_pictures_count_in_the_memory_of_a_recording(tree):
    assert tree[0].nbytes >= 4 * tree[0].image.width * tree[0].image.height + tree[0].final.nbytes
    large = replace(tree[0], image=Image.new("RGB", (1000, 1000)))
    assert large.nbytes - tree[0].nbytes >= 3_900_000
    given = tasks.options("image_to_image", picture=Image.new("RGB", (900, 900)), seed=1)
    with_input = replace(large, origin=replace(large.origin, options=given))
    assert with_input.nbytes - large.nbytes == 4 * 900 * 900


@pytest.mark.parametrize("sampler", ["heun", "plms", "restart", "dpmpp_3m_sde", "lcm", "heunpp2"])
def test_what_was_exported_is_opened_with_every_kind_of_sampler(models, sampler, tmp_path):
    asked = GenerateOptions(prompt="[a:b:0.5] cat", seed=4, steps=5, sampler=sampler, count=2)
    recorder = Recorder(models, models.stream(asked, words=True))
    list(recorder)
    pictures = [recorder.recordings[1]]
    for step, change in ((0, {}), (2, {"cfg": 1.0, "noise_seed": 5}), (3, {"sampler": "ddim"})):
        pictures.append(gone_on(models, pictures[-1], step, **change)[1])
    opened = open_tree(save(pictures, tmp_path / "t.safetensors"))
    assert [r.steps for r in opened] == [r.steps for r in pictures]


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
