"""Every verdict of `verify` on pictures of a tiny random model, their receipts true or forged."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import GenerateOptions, InputError, load, tasks, verify
from pipeline.introspection import recording_file
from pipeline.introspection.branch import BranchRun
from pipeline.introspection.recording import Recorder
from pipeline.metadata import receipt
from pipeline.metadata.fingerprint import fingerprint


def test_identical(models, signed_png):
    case = verify.open_input(signed_png)
    *checked, verdict = verify.check(models, case)
    assert [(c.step, c.total, c.same) for c in checked if c.same] == [
        (k, 4, True) for k in range(5)
    ]
    assert verdict.kind == "identical" and verdict.same == (True,) * 5
    assert verdict.step is None and not verdict.environment and not verdict.altered
    assert verdict.pixels == (0.0, 0, 0.0)
    assert "all 4 steps and every pixel" in " ".join(verdict.sentences)


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("hires", {"scale": 1.5, "strength": 0.5, "count": 2}),
        ("hires", {"upscaler": "latent", "refine_steps": 3, "strength": 0.7}),
        ("generate", {"sampler": "heun", "count": 4}),
        ("generate", {"variation_strength": 0.3, "variation_seed": 9, "count": 2}),
        ("generate", {"sampler": None, "schedule": None, "cfg": None, "clip_skip": 2}),
        ("grid", {"x": "cfg: 1, 4", "y": "steps: 2, 3"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_what_is_drawn_from_words_is_identical(models, tmp_path, key, fields, draw):
    files = draw(models, tmp_path, key, **fields)
    if key == "grid":  # its sheet is made of pictures that verify each on their own
        with pytest.raises(InputError, match=r"sheet of a grid.* verify its pictures"):
            receipt.read(files.pop(0))
    verdict = verify.verify(models, files[-1])
    assert verdict.kind == "identical", verdict.sentences
    assert verdict.steps > 1 and all(verdict.same)


def test_the_third_of_four_is_made_alone(models, tmp_path, monkeypatch, request_options, draw):
    files = draw(models, tmp_path, count=4)
    calls = []
    inner = models.unet.forward
    monkeypatch.setattr(models.unet, "forward", lambda *a, **k: calls.append(1) or inner(*a, **k))
    assert verify.verify(models, files[2]).kind == "identical"
    assert len(calls) == request_options["steps"]


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("image_to_image", {"strength": 0.6, "count": 2}),
        ("inpaint", {"fill": "noise", "count": 2, "left": 16}),
        ("inpaint", {"area": "masked", "steps": None}),
        ("upscale", {"strength": 0.4, "scale": 1.5}),
        ("upscale", {"redraw": False}),
        ("colorize", {"cfg": None, "steps": None}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_what_began_from_a_picture_needs_it_again(models, tmp_path, input_files, key, fields, draw):
    picture, mask = map(str, input_files)
    with_mask = {"mask": mask} if key == "inpaint" else {}
    path = draw(models, tmp_path, key, picture=picture, **with_mask, **fields)[-1]
    verdict = verify.verify(models, path, picture=picture, **with_mask)
    assert verdict.kind == "identical", verdict.sentences
    needed = "picture and mask" if with_mask else "picture"
    with pytest.raises(InputError, match=f"began from a {needed}: give the same"):
        verify.open_input(path)
    with pytest.raises(InputError, match="not the picture that it began from"):
        other = Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        other.save(tmp_path / "other.png")
        verify.open_input(path, picture=str(tmp_path / "other.png"), **with_mask)


def test_a_picture_that_it_did_not_begin_from_is_refused(signed_png, input_files):
    with pytest.raises(InputError, match="began from no picture"):
        verify.open_input(signed_png, picture=str(input_files[0]))


@pytest.mark.parametrize("key", ["generate", "hires"])
def test_a_branch_of_a_branch_is_identical(models, tmp_path, key, request_options, rewritten):
    more = {"scale": 1.5, "strength": 0.9} if key == "hires" else {"count": 2}
    events = tasks.stream(models, key, tasks.options(key, **request_options, **more), words=True)
    watch = Recorder(models, events)
    *_, root = watch
    one = BranchRun(models, watch.recordings[-1], 1, {"prompt": "blue"})
    list(one)
    two = BranchRun(models, one.recordings[0], 2, {"sampler": "euler", "noise_seed": 9, "cfg": 2.0})
    *steps, result = two
    (path,) = result.save(tmp_path / "branch.png")
    found = receipt.read(path)
    assert [b["at"] for b in found.branches] == [1, 2] and found.words
    before = len(found.steps) - 1 - two.recordings[0].steps
    assert before == (request_options["steps"] if key == "hires" else 0)
    # The way before is the parents', and its own from there on.
    at_root = receipt.from_image(root.images[-1]).steps
    assert found.steps[: before + 2] == at_root[: before + 2] != found.steps[before + 2 :]
    assert found.fingerprints[before + 2].digest == fingerprint(steps[0].latents).digest
    *checked, verdict = verify.check(models, verify.open_input(path))
    assert verdict.kind == "identical", verdict.sentences
    assert all(c.same for c in checked) and checked[-1].step == verdict.steps
    assert [c.step for c in checked] == sorted(c.step for c in checked)

    def other(about):
        about["branches"][0]["prompt"] = "green"

    verdict = verify.verify(models, rewritten(path, other))
    assert (verdict.kind, verdict.altered) == ("tampered", ("text",))
    assert verdict.step == before + 2


def test_a_branch_of_an_exported_tree_has_a_receipt_too(models, tmp_path, request_options):
    watch = Recorder(models, models.stream(GenerateOptions(**request_options), words=True))
    list(watch)
    (root,) = recording_file.open_tree(recording_file.save(watch.recordings, tmp_path / "a.tree"))
    *_, result = BranchRun(models, root, 2, {"cfg": 6.0})
    assert verify.verify(models, result.save(tmp_path / "a.png")[0]).kind == "identical"
    root.image.info["receipt"] = "{"  # damaged on its way: no receipt, and no failure
    *_, result = BranchRun(models, root, 2, {"cfg": 6.0})
    assert "receipt" not in result.images[0].info


@pytest.mark.parametrize("what", ["attention", "dtype"])
def test_another_machine_departs_and_says_by_how_much(
    models, tiny_model, signed_png, drawn, what, request_options
):
    result, steps = drawn
    if what == "attention":
        other, more = models, {"attention": "math"}
        again = models.stream(GenerateOptions(**request_options, attention="math"))
    else:
        other, more = load(str(tiny_model), device="cpu", dtype="bf16"), {}
        again = other.stream(GenerateOptions(**request_options))
    *others, last = again
    verdict = verify.verify(other, signed_png, **more)
    assert verdict.kind == "departs" and verdict.step >= 1
    one = [*(s.latents for s in steps), result.latents[0]]
    two = [*(s.latents for s in others), last.latents[0]]
    true = [float((a - b).square().mean().sqrt()) for a, b in zip(one, two, strict=True)]
    assert verdict.same == tuple(t == 0 for t in true)
    assert verdict.amount == pytest.approx(true[verdict.step], rel=0.45)
    assert verdict.final == pytest.approx(true[-1], rel=0.45)
    apart = np.abs(np.asarray(result.images[0], int) - np.asarray(last.images[0], int))
    assert verdict.pixels == (apart.mean(), apart.max(), apart.any(-1).mean())
    rows = {d.what: (d.then, d.now) for d in verdict.environment}
    expected = {"attention": ("sdpa", "math"), "dtype": ("float32", "bfloat16")}
    assert rows[what] == expected[what] and "torch" not in rows
    said = " ".join(verdict.sentences)
    assert f"from step {verdict.step} of 4" in said and f"was {rows[what][0]}, is" in said


def test_other_threads_and_versions_are_named(models, signed_png, rewritten):
    def older(about):
        about["ran"]["threads"], about["versions"]["torch"] = "16", "2.10.0"

    verdict = verify.verify(models, rewritten(signed_png, older))
    now = str(torch.get_num_threads())
    assert ("threads", "16", now) in verdict.environment
    assert ("torch", "2.10.0", torch.__version__) in verdict.environment
    assert verdict.kind == "identical"  # and where the bits are the same, it says so


def test_changed_pixels(models, signed_png, rewritten):
    image = Image.open(signed_png).convert("RGB")
    for x in range(8):
        image.putpixel((x, 0), tuple(255 - c for c in image.getpixel((x, 0))))
    verdict = verify.verify(models, rewritten(signed_png, image=image))
    assert verdict.kind == "tampered" and verdict.altered == ("pixels",)
    assert all(verdict.same) and verdict.pixels.share == pytest.approx(8 / 64**2)
    assert "the picture made again is the true one" in " ".join(verdict.sentences)
    # Elsewhere, where the steps depart, it is known all the same.
    verdict = verify.verify(models, signed_png, attention="math")
    assert (verdict.kind, verdict.altered) == ("tampered", ("pixels",)) and not all(verdict.same)
    # One who knows how writes the hash of these pixels, too.
    forged = rewritten(signed_png, lambda about: about.update(pixels=receipt.pixels_digest(image)))
    verdict = verify.verify(models, forged)
    assert verdict.kind == "tampered" and verdict.altered == ("pixels",)


def test_pixels_that_were_decoded_a_little_otherwise_elsewhere_are_no_forgery(
    models, signed_png, rewritten
):
    image = Image.open(signed_png).convert("RGB").point(lambda v: min(v + 1, 255))

    def elsewhere(about):
        about["versions"]["torch"], about["pixels"] = "2.10.0", receipt.pixels_digest(image)

    verdict = verify.verify(models, rewritten(signed_png, elsewhere, image=image))
    assert verdict.kind == "departs" and verdict.step == 5 and verdict.pixels.largest == 1
    assert "decoded to slightly other pixels" in verdict.sentences[0]


def test_a_changed_text(models, signed_png, drawn, rewritten):
    text = drawn[0].parameters[0].replace("Seed: 5", "Seed: 6")
    verdict = verify.verify(models, rewritten(signed_png, text=text))
    assert verdict.kind == "tampered" and verdict.altered == ("text",) and all(verdict.same)
    forged = rewritten(signed_png, lambda about: about.update(text=receipt.text_digest(text)))
    assert verify.verify(models, forged).altered == ("text",)


def test_a_changed_receipt_is_known_without_drawing(models, signed_png, monkeypatch, rewritten):
    def change(about):
        about["steps"][2] = "0" + about["steps"][2][1:]
        about["digest"] = "0" * 64

    monkeypatch.setattr(models.unet, "forward", None)
    verdict = verify.verify(models, rewritten(signed_png, change, digest=False))
    assert verdict.kind == "tampered" and verdict.altered == ("receipt",)
    assert "the receipt was changed" in verdict.sentences[0]


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_forger_cannot_make_up_a_step(models, signed_png, step, rewritten):
    def change(about):
        fake = fingerprint(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)))
        about["steps"][step] = str(fake)

    verdict = verify.verify(models, rewritten(signed_png, change))
    assert (verdict.kind, verdict.step) == ("departs", step)
    assert [k for k, same in enumerate(verdict.same) if not same] == [step]
    assert verdict.amount > 0.1


def test_a_receipt_of_fewer_or_more_steps_departs(models, signed_png, rewritten):
    for change, step in (
        (lambda about: about["steps"].pop(), 4),
        (lambda about: about["steps"].append(about["steps"][-1]), 5),
        (lambda about: about["steps"].clear(), 0),
    ):
        copy = shutil.copy(signed_png, signed_png.with_name("copy.png"))
        verdict = verify.verify(models, rewritten(signed_png.with_name("copy.png"), change))
        assert (verdict.kind, verdict.step) == ("departs", step), copy
        assert verdict.sentences[0]


def test_other_options_depart(models, signed_png, rewritten):
    verdict = verify.verify(models, rewritten(signed_png, lambda a: a["options"].update(seed=6)))
    assert verdict.kind == "tampered" and verdict.step == 0  # and the text says another seed
    assert "differ before the first of 4 steps" in " ".join(verdict.sentences)


def test_another_model_of_the_same_name(models, tiny_copy, signed_png, monkeypatch):
    file = tiny_copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    other = load(str(tiny_copy), device="cpu")
    assert (other.name, other.hash) == (models.name, models.hash)  # the UNet is the same
    monkeypatch.setattr(other.unet, "forward", None)
    verdict = verify.verify(other, signed_png)
    assert verdict.kind == "other" and [d.what for d in verdict.environment] == ["vae"]
    assert "the one here is" in verdict.sentences[0] and "vae was" in verdict.sentences[1]


WRONG = {
    "steps": (lambda a: a["steps"].__setitem__(1, "0" * 16 + ":AAAA"), "damaged: steps"),
    "nan": (
        lambda a: a["steps"].__setitem__(1, "0" * 16 + ":" + "AADAfw" * 28 + "AADA="),
        "damaged: steps",
    ),
    "more": (lambda a: a.update(more=1), "damaged: more"),
    "image": (lambda a: a.update(image=-1), "damaged: image"),
    "nested": (lambda a: a["options"].update(prompt=[[]]), "damaged: options"),
    "count": (lambda a: a.update(image=3), "which picture of its request"),
    "task": (lambda a: a.update(task="../x"), "a task that is not known: ../x"),
    "grid": (lambda a: a.update(task="grid"), "a task that is not known: grid"),
    "limits": (lambda a: a["options"].update(width=99_992), "asks for what cannot be drawn: Width"),
    "option": (lambda a: a["options"].update(evil=1), "asks for what cannot be drawn: There is no"),
    "file": (lambda a: a["options"].update(picture="/etc/passwd"), ""),
    "input": (lambda a: a["inputs"].update(picture="0" * 64), "It began from a picture"),
    "branch": (lambda a: a["branches"].append({"at": 99}), "There is no step 100"),
    "branch text": (lambda a: a["branches"].append({"at": "x"}), "at which step a branch begins"),
    "branch what": (lambda a: a["branches"].append({"at": 1, "size": 4}), "cannot change size"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_receipt_is_believed_nothing(models, signed_png, name, rewritten):
    change, sentence = WRONG[name]
    forged = rewritten(signed_png, change)
    if not sentence:  # a signed_png among the options is not looked at
        assert verify.verify(models, forged).kind == "identical"
        return
    with pytest.raises(InputError, match=sentence):
        verify.verify(models, forged)


def test_a_model_is_a_name_of_the_library_alone(signed_png):
    then = receipt.read(signed_png)
    assert verify.choose_model(then, ["other", "tiny"], []) == ("tiny", None)
    with pytest.raises(InputError, match=f"the model tiny {then.model['hash']}, which is not here"):
        verify.choose_model(then, ["other"], [])
    # renamed here
    assert verify.choose_model(then, ["new"], [], {"new": then.model["hash"]}) == ("new", None)
    for name in ("/etc/passwd", "owner/name", "../tiny"):
        forged = then.model_copy(update={"model": {"name": name, "hash": "0", "vae": None}})
        with pytest.raises(InputError, match="is not here; there is tiny"):
            verify.choose_model(forged, ["tiny"], [])
    forged = then.model_copy(update={"model": then.model | {"vae": "/x.safetensors"}})
    with pytest.raises(InputError, match=r"autoencoder /x\.safetensors, which is not here"):
        verify.choose_model(forged, ["tiny"], ["soft"])
