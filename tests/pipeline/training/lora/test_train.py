"""Training a LoRA: events, exact resume, the loss, and a character that the model learns."""

import csv
import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from pipeline import load
from pipeline.errors import InputError
from pipeline.lora.reading import read_lora
from pipeline.model_files import library
from pipeline.training import loop
from pipeline.training.lora import data as lora_data
from pipeline.training.lora import train as lora

EMOJI = Path(__file__).parents[4] / "pipeline/models/emoji"


@pytest.mark.quick
def test_progress_then_files_that_change_what_is_drawn(tiny, make_options, run):
    events = run(tiny, make_options(previews=2))
    *steps, end = events
    assert [e.step for e in steps] == [1, 2, 3, 4] and steps[0].total == 4
    assert [e.preview is not None for e in steps] == [False, True, False, True]
    previews = [Image.open(f"runs/lora/zog/preview-{n:06d}.png") for n in (2, 4)]
    assert [p.size for p in previews] == [(64, 64)] * 2
    assert list(previews[1].getdata()) == list(steps[-1].preview.getdata())
    assert end.path == Path("models/lora/zog.safetensors") and end.steps == 4
    assert library.find_entries("lora")["zog"].path == end.path
    rows = list(csv.DictReader(Path("runs/lora/zog/log.csv").read_text().splitlines()))
    assert [r["step"] for r in rows] == ["4"]
    bare = tiny.generate(prompt="a red apple", seed=1).images[0]
    drawn_with_lora = tiny.generate(prompt="a red apple <lora:zog:1>", seed=1)
    assert not drawn_with_lora.warnings and drawn_with_lora.images[0].tobytes() != bare.tobytes()
    # The last preview was drawn by the same matrices before they were rounded to fp16.
    again = tiny.generate(prompt="a red apple <lora:zog:1>", seed=0).images[0]
    apart = torch.tensor(list(again.getdata())) - torch.tensor(list(previews[1].getdata()))
    assert apart.abs().max() <= 2


def test_the_serving_model_is_untouched(tiny, make_options, run, answer):
    before = answer(tiny)
    weights = {k: v.clone() for k, v in tiny.unet.state_dict().items()}
    processor = tiny.backends.processor
    run(tiny, make_options(previews=1, prior_prompt="a apple", prior_count=1))
    assert torch.equal(answer(tiny), before)
    assert all(torch.equal(v, weights[k]) for k, v in tiny.unet.state_dict().items())
    assert not any(p.requires_grad and p.grad is not None for p in tiny.unet.parameters())
    assert all(not m._forward_hooks for m in tiny.unet.modules())
    assert processor is tiny.backends.processor and not tiny.unet.training


def test_stopped_and_resumed_is_an_unbroken_run_to_the_bit(
    tiny, make_options, run, tensors, newest
):
    run(tiny, make_options(name="whole", steps=6, checkpoint_steps=4))
    events = lora.train(tiny, make_options(name="parts", steps=6))
    for event in events:
        if event.step == 3:
            events.close()  # between two steps
    assert not Path("models/lora/parts.safetensors").exists()
    *steps, end = run(tiny, make_options(name="parts", steps=6, resume=True))
    assert [e.step for e in steps] == [4, 5, 6]
    whole, parts = newest("runs/lora/whole"), newest("runs/lora/parts")
    assert whole.keys() == parts.keys() and any(k.startswith("optimizer.") for k in whole)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    made = tensors(end.path)
    other = tensors(Path("models/lora/whole.safetensors"))
    assert all(torch.equal(made[k], other[k]) for k in other) and made.keys() == other.keys()
    # A finished run goes on too, with more steps.
    assert run(tiny, make_options(name="parts", steps=7, resume=True))[-1].steps == 7


def test_minutes_end_it_with_a_file(tiny, monkeypatch, make_options, run):
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr(lora.time, "monotonic", lambda: next(clock))
    end = run(tiny, make_options(steps=500, minutes=3))[-1]
    assert 1 <= end.steps < 10 and end.path.exists()


@pytest.mark.parametrize("family", ["sd1", "sd2", "xl"])
def test_every_family_learns_and_both_namings_are_the_same(
    pairs, family, make_options, run, tensors, answer, answer_with_lora
):
    models = load(pairs(family).folder, device="cpu")
    options = make_options(size=64, layers="blocks", alpha=6.0, rate=1e-2)
    end = run(models, options)[-1]
    bare, outputs = answer(models), []
    for path in (end.path, end.other):
        fitted = models.adapters.fit(read_lora(path))
        models.adapters.install(((fitted, 1.0, 1.0),))
        context_free = answer_with_lora(models, fitted)
        outputs.append(context_free)
    models.adapters.install(())
    assert (outputs[0] - bare).abs().max() > 1e-3
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6, rtol=0)
    names = list(tensors(end.other))
    assert all(n.startswith("lora_unet_") for n in names)
    assert ("lora_unet_input_blocks" in " ".join(names)) == (family == "xl")


def test_the_loss_is_that_of_the_checkpoints_own_prediction(pairs, make_options):
    """Against the formulas written out: velocity for SD 2.x, noise weighted by min-SNR-5 else."""
    for family in ("sd1", "sd2"):
        models = load(pairs(family).folder, device="cpu")
        options = lora.resolve_options(models, make_options(size=64, name=family))
        own, _ = lora_data.read_examples(options.images, options.prompt, 64)
        dataset = lora_data.encode_dataset(models, own, [], 64, False)
        trainer, _ = lora.make_trainer(models, options, dataset, "")
        loss = trainer.step_fn(loop.step_generator(0, 0), 0)["loss"]

        generator = loop.step_generator(0, 0)
        rows = torch.randint(3, (2,), generator=generator)
        torch.rand(2, generator=generator)  # whose caption is left empty: nobody's here
        t = (torch.rand(2, generator=generator) * 1000).long()
        noise = torch.randn(2, 4, 8, 8, generator=generator)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        abar = (1 - betas).cumprod(0).float()[t].view(-1, 1, 1, 1)
        clean = dataset.latents[rows]
        x = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        with torch.no_grad():
            out = models.unet(x, t, encoder_hidden_states=dataset.contexts[rows]).sample
        snr = (abar / (1 - abar)).flatten()
        wanted, weight = noise, snr.clamp(max=5) / snr
        if family == "sd2":
            wanted, weight = abar.sqrt() * noise - (1 - abar).sqrt() * clean, torch.ones(2)
        expected = ((out - wanted).square().mean((1, 2, 3)) * weight).mean()
        assert torch.allclose(loss, expected, rtol=1e-3), family


def test_class_pictures_are_drawn_once_and_learned(tiny, monkeypatch, make_options, run):
    options = make_options(prior_prompt="a blue apple", prior_count=2, steps=2)
    sizes = []
    batch = lora_data.LoraDataset.batch

    def record(dataset, count, *rest):
        sizes.append((dataset.classes, *[len(x) for x in batch(dataset, count, *rest)[:2]]))
        return batch(dataset, count, *rest)

    monkeypatch.setattr(lora_data.LoraDataset, "batch", record)
    events = run(tiny, options)
    assert [e.loss is None for e in events[:-1]] == [True, True, False, False]
    assert sizes == [(2, 4, 4)] * 2  # as many of the class as of the character
    drawn = sorted(Path("runs/lora/zog/class").glob("*/*"))
    alike = tiny.generate(prompt="a blue apple", seed=1, width=64, height=64).images[0]
    assert len(drawn) == 2 and Image.open(drawn[1]).tobytes() == alike.tobytes()
    assert events[0].preview.tobytes() == Image.open(drawn[0]).tobytes()
    monkeypatch.setattr(type(tiny), "generate", None)  # not drawn again
    assert run(tiny, replace(options, resume=True, steps=3))[-1].steps == 3


def class_pictures(models, options):
    """The bytes of the class pictures of a training that is stopped before its first step."""
    events = lora.train(models, options)
    drawn = [next(events).preview.tobytes() for _ in range(options.prior_count)]
    events.close()
    return drawn


@pytest.mark.parametrize("change", ["prompt", "model", "seed", "size", "embedding"])
def test_class_pictures_of_another_class_or_model_are_not_taken(
    tiny, tiny_model, make_options, change
):
    """A run that was stopped before its first step, and begun again with something changed."""
    given = {"prior_prompt": "a blue apple zonk", "prior_count": 2}
    before = class_pictures(tiny, make_options(**given))
    models = tiny
    if change == "prompt":
        given["prior_prompt"] = "a red rocket zonk"
    elif change == "seed":
        given["seed"] = 2
    elif change == "size":
        given["size"] = 96
    elif change == "embedding":
        Path("models").mkdir()
        save_file({"emb_params": torch.full((2, 32), 0.5)}, "models/zonk.safetensors")
    else:
        other = Path(shutil.copytree(tiny_model, "other"))
        weights = next((other / "vae").glob("*.safetensors"))
        tensors = {k: v * 1.1 for k, v in load_file(weights).items()}
        save_file(tensors, weights, {"format": "pt"})
        models = load(other, device="cpu")
    after = class_pictures(models, make_options(**given))
    wanted = [
        models.generate(
            prompt=given["prior_prompt"],
            seed=given.get("seed", 0) + i,
            width=given.get("size", 64),
            height=given.get("size", 64),
        ).images[0]
        for i in range(2)
    ]
    assert after == [picture.tobytes() for picture in wanted]
    assert not set(after) & set(before)


def test_a_done_run_keeps_only_its_files_where_it_shall(tiny, make_options, run):
    options = make_options(
        keep_run=False, prior_prompt="a apple", prior_count=1, previews=1, steps=2
    )
    end = run(tiny, options)[-1]
    left = sorted(p.name for p in Path("runs/lora/zog").rglob("*"))
    assert left == ["log.csv", "preview-000002.png", "zog-kohya.safetensors"]
    assert end.path.exists() and end.other.exists()
    with pytest.raises(InputError, match="is there; choose another name"):
        run(tiny, replace(options, resume=True))


@pytest.mark.parametrize("more", [{}, {"rank": 40}, {"steps": 5}, {"layers": "attention"}])
def test_a_training_takes_no_more_of_the_disk_than_was_said(tiny, make_options, monkeypatch, more):
    given = {"checkpoint_steps": 2, "previews": 2, "prior_prompt": "a apple", "prior_count": 2}
    options, most = make_options(**given | more), 0
    seen = loop.save_file

    def measure(*args):
        nonlocal most
        seen(*args)
        most = max(most, sum(p.stat().st_size for p in Path("runs").rglob("*") if p.is_file()))

    monkeypatch.setattr(loop, "save_file", measure)
    list(lora.train(tiny, options))
    written = (p for place in ("runs", "models") for p in Path(place).rglob("*") if p.is_file())
    most = max(most, sum(p.stat().st_size for p in written))
    said = lora.disk_bytes(tiny, options)
    assert most <= said < 2 * most + 500_000
    rank = lora.largest_rank(tiny, replace(options, rank=64), said)
    assert lora.disk_bytes(tiny, replace(options, rank=rank)) <= said
    assert rank >= options.rank


def test_another_autoencoder_is_another_training(tiny, make_options, run):
    run(tiny, make_options(steps=1))
    other = replace(tiny, vae_name="sharp", digests=tiny.digests | {"vae": "ab" * 32})
    with pytest.raises(InputError, match=r"model: .* there, .* abababab"):
        run(other, make_options(steps=2, resume=True))


def test_a_prompt_names_the_loras_of_the_folder_that_the_model_was_given(tiny, make_options, run):
    run(tiny, make_options(name="mine", out=Path("visitor/lora"), run=Path("visitor/run")))
    request = {"prompt": "a red apple <lora:mine:1>", "seed": 1, "steps": 1}
    bare = tiny.generate(**request)
    assert "There is no LoRA 'mine'" in bare.warnings[0]
    drawn = replace(tiny, lora_folder=Path("visitor/lora")).generate(**request)
    assert not drawn.warnings and drawn.images[0].tobytes() != bare.images[0].tobytes()
    assert "mine" not in library.find_entries("lora")


def test_other_settings_or_pictures_are_not_resumed(tiny, dots, make_options, run):
    run(tiny, make_options(steps=1))
    with pytest.raises(InputError, match="rank: 3 there, 4 now"):
        run(tiny, make_options(steps=2, resume=True, rank=4))
    with pytest.raises(InputError, match="pictures"):
        run(tiny, make_options(steps=2, resume=True, images=dots(2)))


def test_a_full_disk_leaves_the_last_checkpoint(tiny, monkeypatch, make_options, run, tensors):
    save_file, calls = loop.save_file, []

    def full(tensors, path, metadata):
        calls.append(path)
        if len(calls) > 1:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(loop, "save_file", full)
    with pytest.raises(InputError, match=r"No space left .*checkpoint-00000002\S* stays"):
        run(tiny, make_options(checkpoint_steps=2))
    assert not list(Path("runs/lora/zog").glob(".*")) and not Path("models").exists()
    monkeypatch.setattr(loop, "save_file", save_file)
    assert run(tiny, make_options(resume=True))[0].step == 3


def test_a_loss_that_is_not_finite_ends_it_and_is_not_saved(tiny, monkeypatch, make_options, run):
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(lora, "denoising_loss", lambda *_, **__: nan * 1)
    with pytest.raises(InputError, match=r"went astray at step 1: .* choose a lower rate"):
        run(tiny, make_options())
    assert not list(Path().glob("**/*.safetensors"))


GROUNDS = {"yellow": "#fad65e", "green": "#60be5a", "white": "#fafafa", "orange": "#fa9632"}


GROUNDS |= {"gray": "#969696", "blue": "#4682e6", "pink": "#faa0c8"}


TRAINING = (("yellow", 0, 0, 1), ("green", -8, 4, 0.9), ("white", 6, -2, 1.1))


TRAINING += (("orange", 4, 6, 0.85), ("gray", -4, -3, 1))


HELD_OUT = (("blue", 3, 2, 0.95), ("pink", -5, 0, 1.05), ("blue", 0, -4, 0.9), ("pink", 5, 5, 1))


def zog(ground: str, dx: int, dy: int, scale: float) -> Image.Image:
    """A creature that nobody has seen: striped in violet and teal, one eye, three antennae."""
    side = 512
    picture = Image.new("RGB", (side, side), GROUNDS[ground])
    body, stripes = Image.new("L", (side, side)), Image.new("RGB", (side, side), "#9646c8")
    unit = side / 128 * scale

    def box(*corners: float) -> tuple[float, ...]:
        return tuple(side / 2 + (v + (dx, dy)[i % 2]) * unit for i, v in enumerate(corners))

    draw = ImageDraw.Draw(picture)
    for lean in (-18, 0, 18):
        draw.line(box(lean * 0.6, -20, lean, -44), fill="#5a1e78", width=int(4 * unit))
        draw.ellipse(box(lean - 5, -50, lean + 5, -40), fill="#fa781e")
    draw.rectangle(box(-16, 34, -6, 48), fill="#3c145a")
    draw.rectangle(box(6, 34, 16, 48), fill="#3c145a")
    ImageDraw.Draw(body).ellipse(box(-30, -30, 30, 40), fill=255)
    for y in range(-30, 42, 14):
        ImageDraw.Draw(stripes).rectangle(box(-64, y, 64, y + 6), fill="#50dcc8")
    picture.paste(stripes, (0, 0), body)
    draw.ellipse(box(-14, -18, 14, 10), fill="white")
    draw.ellipse(box(-6, -10, 6, 2), fill="#141414")
    return picture.resize((128, 128), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def embed_pictures():
    """A function that embeds pictures with the embedded model's CLIP: unit vectors (N, E)."""
    from transformers import CLIPVisionModelWithProjection

    from pipeline.images.open import to_tensor

    folder = EMOJI / "clip/image_encoder"
    tower = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval()

    def embed(pictures) -> torch.Tensor:
        pixels = torch.cat([to_tensor(p) for p in pictures]) * 2 - 1
        with torch.no_grad():
            return torch.nn.functional.normalize(tower(pixels).image_embeds, dim=-1)

    return embed


def test_the_embedded_model_learns_a_drawing_it_has_never_seen(embed_pictures, run):
    """On new backgrounds and from new seeds its pictures come closer to held-out drawings."""
    models = load("emoji", device="cpu")
    prompt = "zog the striped creature"
    options = lora.LoraOptions([zog(*s) for s in TRAINING], "zog", prompt, steps=110, rate=3e-3)
    end = run(models, options)[-1]
    assert end.notes == () and end.loss < 0.25
    held_out = embed_pictures([zog(*h) for h in HELD_OUT])

    def near(tag: str) -> torch.Tensor:
        drawn = [
            models.generate(prompt=f"{prompt} on a {c} background{tag}", seed=s, steps=12).images[0]
            for c in ("blue", "pink")
            for s in (101, 102, 103)
        ]
        return (embed_pictures(drawn) @ held_out.T).mean(1)

    with_it, without = near(" <lora:zog:1>"), near("")
    assert with_it.mean() > without.mean() + 0.04, (with_it, without)
    # Six pictures are few, and processors round differently: most of them, not all but one.
    assert (with_it > without).float().mean() > 0.5, (with_it, without)
