"""Receipts on a tiny random model: what they hold, and every verdict of `verify` on them."""

import hashlib
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline import GenerateOptions, InputError, load, tasks, verify
from pipeline.__main__ import main
from pipeline.introspection import recording_file
from pipeline.introspection.branch import BranchRun
from pipeline.introspection.recording import Recorder
from pipeline.metadata import infotext, receipt
from pipeline.metadata.fingerprint import SKETCH, LatentFingerprint, fingerprint

ASK = {"prompt": "a red apple, 红苹果", "seed": 5, "steps": 4, "cfg": 3.0, "sampler": "euler_a"}


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def drawn(models):
    """The Result of ASK and its steps; read only."""
    *steps, result = models.stream(GenerateOptions(**ASK))
    return result, steps


@pytest.fixture
def path(drawn, tmp_path):
    (saved,) = drawn[0].save(tmp_path / "picture.png")
    return saved


def draw(models, folder, key="generate", **fields):
    """The files of a task's pictures."""
    *_, result = tasks.stream(models, key, tasks.options(key, **(ASK | fields)))
    return result.save(folder / f"{key}.png")


def rewritten(path, change=None, digest=True, image=None, text=None):
    """The file anew with another receipt, `change(about)` having changed it, or another picture or
    text; with or without a digest that fits."""
    with Image.open(path) as opened:
        opened.load()
    about = json.loads(opened.info["glassbox"])
    if change:
        change(about)
    picture = image or opened.convert("RGB")
    picture.info["parameters"] = text or opened.info["parameters"]
    picture.info["receipt"] = receipt.to_json(about) if digest else json.dumps(about)
    from pipeline.metadata.save import save_picture

    return save_picture(picture, path)


def test_a_receipt_says_how_its_picture_came_about(models, drawn, path):
    result, steps = drawn
    found = receipt.read(path)
    assert found.intact and found.task == "generate" and not found.branches and not found.inputs
    assert not found.words
    assert found.options.items() >= (ASK | {"width": 64, "height": 64}).items()
    assert found.model == {"name": "tiny", "hash": models.hash, "vae": None}
    assert set(found.weights) == {"unet", "vae", "text_encoder"}
    assert found.weights["unet"].startswith(models.hash)
    assert found.ran.items() >= {"device": "cpu", "dtype": "float32", "attention": "sdpa"}.items()
    assert found.ran["threads"] == str(torch.get_num_threads())
    assert found.versions["torch"] == torch.__version__
    assert found.pixels == receipt.pixels_digest(result.images[0])
    latents = [step.latents for step in steps] + result.latents
    assert len(found.steps) == ASK["steps"] + 1
    for print_, true in zip(found.fingerprints, latents, strict=True):
        assert print_.digest == fingerprint(true.clone()).digest
    # A changed bit changes the hash; the text beside is as it always was.
    other = latents[2].clone()
    other.view(torch.int32).view(-1)[7] ^= 1
    assert fingerprint(other).digest != found.fingerprints[2].digest
    assert infotext.read(path) == result.parameters[0]


@pytest.mark.parametrize("where", ["everywhere", "one channel", "a corner"])
def test_a_difference_is_estimated_without_the_latents(where):
    """Over many pairs: right on average, and hardly ever far off."""
    generator = torch.Generator().manual_seed(3)
    ratios = []
    for _ in range(200):
        x = torch.randn((1, 4, 32, 24), generator=generator)
        change = 0.01 * torch.randn(x.shape, generator=generator)
        if where == "one channel":
            change[:, 1:] = 0
        if where == "a corner":
            change[..., 6:, :] = change[..., :, 6:] = 0
        true = change.square().mean().sqrt()
        ratios.append(fingerprint(x).rms_difference(fingerprint(x + change)) / float(true))
    ratios = np.array(ratios)
    assert abs((ratios**2).mean() - 1) < 0.06
    assert 0.08 < ratios.std() < 0.18  # 1 / sqrt(2 * 32) = 0.125
    assert fingerprint(x).rms_difference(fingerprint(x.clone())) == 0


def splitmix64(n: int) -> int:
    """Vigna's generator, its n-th number."""
    z = n * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_a_fingerprint_is_the_same_on_every_machine():
    """By the bits, one number after the other; and frozen, for receipts outlive a version."""
    latents = torch.arange(256, dtype=torch.float32).reshape(1, 4, 8, 8) / 16
    sums = [0.0] * SKETCH
    for place, number in enumerate(latents.flatten().tolist()):
        bits = splitmix64(place + 1)
        sums[bits % SKETCH] += -number if bits >> 63 else number
    made = fingerprint(latents)
    assert made.sketch.tolist() == [total / 16 for total in sums]  # of 256 numbers
    digest = hashlib.sha256(struct.pack("<256f", *latents.flatten().tolist())).hexdigest()
    assert made.digest == digest[:16]
    text = str(made)
    assert text.startswith("d5f425b91ae6ea27:AADSvgCA7D8AAJy+AID7vwAAqr8AAGW/AAC+PgAA2D8AQFvA")
    assert LatentFingerprint.parse(text).rms_difference(made) == 0
    assert text == str(fingerprint(latents.double()))


def test_identical(models, path):
    case = verify.open_input(path)
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
def test_what_is_drawn_from_words_is_identical(models, tmp_path, key, fields):
    files = draw(models, tmp_path, key, **fields)
    if key == "grid":  # its sheet is made of pictures that verify each on their own
        with pytest.raises(InputError, match=r"sheet of a grid.* verify its pictures"):
            receipt.read(files.pop(0))
    verdict = verify.verify(models, files[-1])
    assert verdict.kind == "identical", verdict.sentences
    assert verdict.steps > 1 and all(verdict.same)


def test_the_third_of_four_is_made_alone(models, tmp_path, monkeypatch):
    files = draw(models, tmp_path, count=4)
    calls = []
    inner = models.unet.forward
    monkeypatch.setattr(models.unet, "forward", lambda *a, **k: calls.append(1) or inner(*a, **k))
    assert verify.verify(models, files[2]).kind == "identical"
    assert len(calls) == ASK["steps"]


@pytest.fixture
def given(tmp_path):
    field = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(field).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "in.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (10, 10, 40, 50))
    mask.save(tmp_path / "mask.png")
    return tmp_path / "in.png", tmp_path / "mask.png"


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
def test_what_began_from_a_picture_needs_it_again(models, tmp_path, given, key, fields):
    picture, mask = map(str, given)
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


def test_a_picture_that_it_did_not_begin_from_is_refused(path, given):
    with pytest.raises(InputError, match="began from no picture"):
        verify.open_input(path, picture=str(given[0]))


@pytest.mark.parametrize("key", ["generate", "hires"])
def test_a_branch_of_a_branch_is_identical(models, tmp_path, key):
    more = {"scale": 1.5, "strength": 0.9} if key == "hires" else {"count": 2}
    events = tasks.stream(models, key, tasks.options(key, **ASK, **more), words=True)
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
    assert before == (ASK["steps"] if key == "hires" else 0)
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


def test_a_branch_of_an_exported_tree_has_a_receipt_too(models, tmp_path):
    watch = Recorder(models, models.stream(GenerateOptions(**ASK), words=True))
    list(watch)
    (root,) = recording_file.open_tree(recording_file.save(watch.recordings, tmp_path / "a.tree"))
    *_, result = BranchRun(models, root, 2, {"cfg": 6.0})
    assert verify.verify(models, result.save(tmp_path / "a.png")[0]).kind == "identical"
    root.image.info["receipt"] = "{"  # damaged on its way: no receipt, and no failure
    *_, result = BranchRun(models, root, 2, {"cfg": 6.0})
    assert "receipt" not in result.images[0].info


@pytest.mark.parametrize("what", ["attention", "dtype"])
def test_another_machine_departs_and_says_by_how_much(models, tiny_model, path, drawn, what):
    result, steps = drawn
    if what == "attention":
        other, more = models, {"attention": "math"}
        again = models.stream(GenerateOptions(**ASK, attention="math"))
    else:
        other, more = load(str(tiny_model), device="cpu", dtype="bf16"), {}
        again = other.stream(GenerateOptions(**ASK))
    *others, last = again
    verdict = verify.verify(other, path, **more)
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


def test_other_threads_and_versions_are_named(models, path):
    def older(about):
        about["ran"]["threads"], about["versions"]["torch"] = "16", "2.10.0"

    verdict = verify.verify(models, rewritten(path, older))
    now = str(torch.get_num_threads())
    assert ("threads", "16", now) in verdict.environment
    assert ("torch", "2.10.0", torch.__version__) in verdict.environment
    assert verdict.kind == "identical"  # and where the bits are the same, it says so


def test_changed_pixels(models, path):
    image = Image.open(path).convert("RGB")
    for x in range(8):
        image.putpixel((x, 0), tuple(255 - c for c in image.getpixel((x, 0))))
    verdict = verify.verify(models, rewritten(path, image=image))
    assert verdict.kind == "tampered" and verdict.altered == ("pixels",)
    assert all(verdict.same) and verdict.pixels.share == pytest.approx(8 / 64**2)
    assert "the picture made again is the true one" in " ".join(verdict.sentences)
    # Elsewhere, where the steps depart, it is known all the same.
    verdict = verify.verify(models, path, attention="math")
    assert (verdict.kind, verdict.altered) == ("tampered", ("pixels",)) and not all(verdict.same)
    # One who knows how writes the hash of these pixels, too.
    forged = rewritten(path, lambda about: about.update(pixels=receipt.pixels_digest(image)))
    verdict = verify.verify(models, forged)
    assert verdict.kind == "tampered" and verdict.altered == ("pixels",)


def test_pixels_that_were_decoded_a_little_otherwise_elsewhere_are_no_forgery(models, path):
    image = Image.open(path).convert("RGB").point(lambda v: min(v + 1, 255))

    def elsewhere(about):
        about["versions"]["torch"], about["pixels"] = "2.10.0", receipt.pixels_digest(image)

    verdict = verify.verify(models, rewritten(path, elsewhere, image=image))
    assert verdict.kind == "departs" and verdict.step == 5 and verdict.pixels.largest == 1
    assert "decoded to slightly other pixels" in verdict.sentences[0]


def test_a_changed_text(models, path, drawn):
    text = drawn[0].parameters[0].replace("Seed: 5", "Seed: 6")
    verdict = verify.verify(models, rewritten(path, text=text))
    assert verdict.kind == "tampered" and verdict.altered == ("text",) and all(verdict.same)
    forged = rewritten(path, lambda about: about.update(text=receipt.text_digest(text)))
    assert verify.verify(models, forged).altered == ("text",)


def test_a_changed_receipt_is_known_without_drawing(models, path, monkeypatch):
    def change(about):
        about["steps"][2] = "0" + about["steps"][2][1:]
        about["digest"] = "0" * 64

    monkeypatch.setattr(models.unet, "forward", None)
    verdict = verify.verify(models, rewritten(path, change, digest=False))
    assert verdict.kind == "tampered" and verdict.altered == ("receipt",)
    assert "the receipt was changed" in verdict.sentences[0]


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_forger_cannot_make_up_a_step(models, path, step):
    def change(about):
        fake = fingerprint(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)))
        about["steps"][step] = str(fake)

    verdict = verify.verify(models, rewritten(path, change))
    assert (verdict.kind, verdict.step) == ("departs", step)
    assert [k for k, same in enumerate(verdict.same) if not same] == [step]
    assert verdict.amount > 0.1


def test_a_receipt_of_fewer_or_more_steps_departs(models, path):
    for change, step in (
        (lambda about: about["steps"].pop(), 4),
        (lambda about: about["steps"].append(about["steps"][-1]), 5),
        (lambda about: about["steps"].clear(), 0),
    ):
        copy = shutil.copy(path, path.with_name("copy.png"))
        verdict = verify.verify(models, rewritten(path.with_name("copy.png"), change))
        assert (verdict.kind, verdict.step) == ("departs", step), copy
        assert verdict.sentences[0]


def test_other_options_depart(models, path):
    verdict = verify.verify(models, rewritten(path, lambda a: a["options"].update(seed=6)))
    assert verdict.kind == "tampered" and verdict.step == 0  # and the text says another seed
    assert "differ before the first of 4 steps" in " ".join(verdict.sentences)


def test_another_model_of_the_same_name(models, tiny_copy, path, monkeypatch):
    file = tiny_copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    other = load(str(tiny_copy), device="cpu")
    assert (other.name, other.hash) == (models.name, models.hash)  # the UNet is the same
    monkeypatch.setattr(other.unet, "forward", None)
    verdict = verify.verify(other, path)
    assert verdict.kind == "other" and [d.what for d in verdict.environment] == ["vae"]
    assert "the one here is" in verdict.sentences[0] and "vae was" in verdict.sentences[1]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def with_receipt(path, body: bytes):
    """A PNG whose receipt is any bytes, compressed."""
    plain = path.with_name("plain.png")
    Image.new("RGB", (64, 64)).save(plain)
    data = plain.read_bytes()
    plain.write_bytes(data[:33] + chunk(b"zTXt", b"glassbox\0\0" + body) + data[33:])
    return plain


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "damaged: it is no JSON"),
        ("{", "damaged: it is no JSON"),
        ("[" * 5000, "damaged: it is no JSON"),
        ("[1]", "damaged: it does not say its version"),
        ('{"receipt": true}', "damaged: it does not say its version"),
        ('{"receipt": NaN}', "damaged: it is no JSON"),
        ('{"receipt": 2, "new": {}}', "written by a newer version of Glassbox"),
        (f'{{"receipt": {"9" * 4000}}}', "written by a newer version of Glassbox"),
        ('{"receipt": 1}', "damaged: task is not as it should be"),
    ],
)
def test_damaged_and_newer_receipts(path, text, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        receipt.read(with_receipt(path, zlib.compress(text.encode())))
    assert len(str(caught.value)) < 300


def test_a_receipt_is_unpacked_no_further_than_its_limit(path):
    with pytest.raises(InputError, match="more than 1,000,000 bytes"):
        receipt.read(with_receipt(path, zlib.compress(b"{" * 50_000_000)))
    with pytest.raises(InputError, match="damaged"):
        receipt.read(with_receipt(path, b"no zlib"))


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
def test_a_receipt_is_believed_nothing(models, path, name):
    change, sentence = WRONG[name]
    forged = rewritten(path, change)
    if not sentence:  # a path among the options is not looked at
        assert verify.verify(models, forged).kind == "identical"
        return
    with pytest.raises(InputError, match=sentence):
        verify.verify(models, forged)


def test_a_model_is_a_name_of_the_library_alone(path):
    then = receipt.read(path)
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


def test_foreign_pictures_get_a_clear_answer(tmp_path, drawn):
    result, _ = drawn
    image = result.images[0]
    for name, sentence in (("a.jpg", "only PNG files carry one"), ("a.webp", "only PNG files")):
        (saved,) = result.save(tmp_path / name)
        with pytest.raises(InputError, match=sentence):
            receipt.read(saved)
    chunks = PngInfo()
    chunks.add_text("parameters", result.parameters[0])
    image.save(tmp_path / "a1111.png", pnginfo=chunks)
    with pytest.raises(InputError, match="a parameters text and no receipt"):
        receipt.read(tmp_path / "a1111.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    with pytest.raises(InputError, match="no receipt, and no parameters text"):
        receipt.read(tmp_path / "bare.png")
    (tmp_path / "x.png").write_text("x")
    with pytest.raises(InputError, match="no PNG, JPEG or WebP"):
        receipt.read(tmp_path / "x.png")


def run(capsys, *argv) -> tuple[int, str, str]:
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_line(capsys, models, tiny_model, tmp_path, path, given):
    here = ("--model", tiny_model, "--device", "cpu")
    code, out, _ = run(capsys, "verify", path, *here)
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "Identical")
    code, out, _ = run(capsys, "verify", path, *here, "--attention", "math")
    assert (code, out.splitlines()[0].split(":")[0]) == (1, "Departs")
    assert "attention was sdpa, is math" in out
    rewritten(path, lambda about: about.update(task="hires"), digest=False)
    code, out, _ = run(capsys, "verify", path, *here)
    assert (code, out.splitlines()[0].split(":")[0]) == (1, "Tampered with")
    picture = str(given[0])
    path = draw(models, tmp_path, "image_to_image", picture=picture, strength=0.5)[0]
    assert run(capsys, "verify", path, *here, "--picture", picture)[0] == 0
    for argv, sentence in (
        (("verify", path, *here), "--picture FILE"),
        (("verify", path, "--picture", picture), "made with the model tiny"),
        (("verify", tmp_path / "none.png"), "There is no file"),
        (("verify", picture), "carries no receipt"),
    ):
        code, out, err = run(capsys, *argv)
        assert code == 2 and sentence in err and err.count("\n") == 1 and not out
