"""`python -m pipeline train`: sentences for what is wrong, and one short run of every stage."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main


@pytest.fixture
def small(few_objects, monkeypatch):
    """Whole runs, little work: a short tokenizer's training, small batches of held-out scenes,
    sample sheets of one caption in few steps."""
    from pipeline.training.emoji import tokenizer, unet, vae

    train, pictures = tokenizer.train, vae.PictureSource.__call__
    captions, draw = unet.sample_captions, unet.draw_samples
    monkeypatch.setattr(tokenizer, "train", lambda *a: train(*a, captions=500))
    monkeypatch.setattr(vae.PictureSource, "__call__", lambda p, n, g: pictures(p, min(n, 8), g))
    monkeypatch.setattr(unet, "sample_captions", lambda vocabulary: captions(vocabulary)[:1])
    monkeypatch.setattr(unet, "draw_samples", lambda *a: draw(*a, steps=3))


def run(capsys, *argv):
    code = main(["train", *(str(a) for a in argv)])
    out, err = capsys.readouterr()
    return code, out, err.strip().splitlines()[-1] if err.strip() else ""


BAD = {
    "no length": (["clip"], "--minutes N or --steps N"),
    "minutes": (["clip", "--minutes", "nan"], "--minutes must be a positive number"),
    "minutes below": (["clip", "--minutes", "-3"], "--minutes must be a positive number"),
    "steps": (["vae", "--steps", "0"], "--steps must be at least 1"),
    "batch": (["vae", "--steps", "1", "--batch", "0"], "--batch must be at least 1"),
    "order": (["unet", "--steps", "1"], "train that stage first"),
    "stage": (["gan"], "gan"),
    "device": (["vae", "--steps", "1", "--device", "tpu"], "cpu"),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, tmp_path, tiny_data, name):
    argv, sentence = BAD[name]
    code, _, err = run(capsys, *argv, "--run", tmp_path / "run", "--data", tiny_data)
    assert code == 2 and sentence in err


def test_missing_data_that_cannot_be_fetched(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm there
    code, _, err = run(capsys, "clip", "--steps", 1, "--data", tmp_path / "none")
    assert code == 2 and "npm is not installed" in err


def test_data_is_fetched_with_npm_pack(capsys, tmp_path, monkeypatch, tiny_data):
    """A stand-in for npm that does what `npm pack` does: puts the named archives here."""
    from pipeline.training.emoji import packages

    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\ncp {tiny_data}/*.tgz .\n")
    npm.chmod(0o755)
    monkeypatch.setattr(packages.shutil, "which", lambda _: str(npm))
    packages.fetch(tmp_path / "data")
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("pack --silent @lobehub/fluent-emoji-3d cldr-annotations-full")
    assert all(p.suffix == ".tgz" for p in (tmp_path / "data").iterdir())
    (tmp_path / "asked").unlink()
    packages.fetch(tmp_path / "data")  # all there: npm is not asked again
    assert not (tmp_path / "asked").exists()


def test_every_stage_once_then_a_model_that_draws(capsys, tmp_path, tiny_data, small):
    from pipeline import load

    where = ["--run", tmp_path / "run", "--data", tiny_data, "--device", "cpu"]
    model = tmp_path / "model"
    assert run(capsys, "clip", "--steps", 2, "--batch", 8, *where)[0] == 0
    assert run(capsys, "vae", "--steps", 2, "--batch", 2, *where)[0] == 0
    assert run(capsys, "decoder", "--steps", 2, "--batch", 2, *where)[0] == 0
    few = ["--batch", 2, "--pool", 8]
    assert run(capsys, "unet", "--steps", 2, *few, *where)[0] == 0
    code, _, err = run(capsys, "unet", "--steps", 3, *few, *where)
    assert code == 2 and "--resume" in err
    assert run(capsys, "unet", "--steps", 3, "--resume", *few, *where)[0] == 0
    code, _, err = run(capsys, "unet", "--steps", 4, "--resume", "--batch", 3, *where)
    assert code == 2 and "batch: 2 there, 3 now" in err
    assert run(capsys, "export", "--model", model, *where)[0] == 0
    made = json.loads((model / "training.json").read_text())["stages"]
    assert made["unet"]["pictures"] == 6 and set(made) == {"clip", "vae", "decoder", "unet"}
    assert (tmp_path / "run/unet/sample.png").exists()
    assert load(str(model), device="cpu").generate(steps=1, seed=1).images[0].size == (128, 128)

    # Another run goes on from the shipped weights alone, and counts what they have seen.
    other = ["--run", tmp_path / "other", "--data", tiny_data, "--device", "cpu", "--base", model]
    assert run(capsys, "unet", "--steps", 1, *few, *other)[0] == 0
    assert run(capsys, "export", "--model", model, *other)[0] == 0
    made = json.loads((model / "training.json").read_text())["stages"]
    assert made["unet"]["pictures"] == 6 + 2 and made["clip"]["pictures"] == 16


def test_all_stages_in_one_command_small_pictures_first(
    capsys, tmp_path, tiny_data, monkeypatch, small
):
    from pipeline.training.emoji.latent_pool import LatentPool

    fill, sides = LatentPool.fill, []

    def record(pool, seed):
        fill(pool, seed)
        sides.append((pool.side, pool.latents.shape[-1]))

    monkeypatch.setattr(LatentPool, "fill", record)
    where = ["--run", tmp_path / "run", "--data", tiny_data, "--device", "cpu"]
    few = ["--steps", 2, "--batch", 4, "--pool", 8, "--model", tmp_path / "model"]
    assert run(capsys, "all", *few, *where)[0] == 0
    assert sides == [(64, 8), (128, 16)]
    made = json.loads((tmp_path / "model/training.json").read_text())["stages"]
    assert {k: v["steps"] for k, v in made.items()} == {"clip": 2, "vae": 2, "unet": 2}


def test_a_signal_ends_all_stages(capsys, tmp_path, tiny_data, monkeypatch, small):
    """Not the first alone: the later ones would learn from a network that is not trained yet."""
    from pipeline.training.loop import Trainer

    run_step = Trainer.run_step

    def step_then_signal(trainer):
        losses = run_step(trainer)
        signal.raise_signal(signal.SIGTERM)
        return losses

    monkeypatch.setattr(Trainer, "run_step", step_then_signal)
    where = ["--run", tmp_path / "run", "--data", tiny_data, "--device", "cpu"]
    few = ["--steps", 3, "--batch", 4, "--pool", 8, "--model", tmp_path / "model"]
    code, out, _ = run(capsys, "all", *few, *where)
    assert code == 0 and "--resume goes on from there" in out
    assert [p.name for p in (tmp_path / "run/clip").glob("*-*")] == [
        "checkpoint-00000001.safetensors"
    ]
    assert not (tmp_path / "run/vae").exists() and not (tmp_path / "model").exists()


def test_towers_and_autoencoder_go_on_from_a_model_folder(capsys, tmp_path, tiny_data, small):
    """One step at a vanishing rate: what is saved is what the model folder held."""
    from safetensors.torch import load_file

    base = Path(__file__).parents[3] / "pipeline/models/emoji"
    where = ["--run", tmp_path, "--data", tiny_data, "--device", "cpu", "--base", base]
    few = ["--steps", 1, "--batch", 4, "--rate", 1e-9]
    assert run(capsys, "clip", *few, *where)[0] == 0
    assert run(capsys, "vae", *few, *where)[0] == 0
    text = load_file(base / "text_encoder/model.safetensors")
    image = load_file(base / "clip/image_encoder/model.safetensors")
    vae = load_file(base / "vae/diffusion_pytorch_model.safetensors")
    held = {s: load_file(next((tmp_path / s).glob("checkpoint-*"))) for s in ("clip", "vae")}
    for name, parts, prefix in (
        ("clip", text, "model.text_model."),
        ("clip", image, "model."),
        ("vae", vae, "model."),
    ):
        for key, tensor in parts.items():
            assert torch.allclose(held[name][prefix + key], tensor.float(), atol=1e-5), key
    assert (tmp_path / "tokenizer/merges.txt").read_text() == (
        base / "tokenizer/merges.txt"
    ).read_text()
    # The folder that it began from is not needed to go on.
    assert run(capsys, "vae", "--steps", 2, "--batch", 4, "--resume", *where[:-2])[0] == 0


def test_choices_are_compared_at_equal_budgets(
    capsys, tmp_path, tiny_data, monkeypatch, few_objects
):
    from pipeline.training.emoji import compare

    for name, few in (
        ("HELD_OUT", 8),
        ("DRAW_EVERY", 16),
        ("SINGLE_OFFSETS", compare.SINGLE_OFFSETS[:1]),
    ):
        monkeypatch.setattr(compare, name, few)
    small = {name: replace(choice, batch=4) for name, choice in compare.CHOICES.items()}
    monkeypatch.setattr(compare, "CHOICES", small)
    base = Path(__file__).parents[3] / "pipeline/models/emoji"
    where = ["--run", tmp_path, "--data", tiny_data, "--device", "cpu", "--base", base]
    few = ["--pool", 32, "--minutes", 0.001]
    code, out, _ = run(capsys, "compare", "--only", "noise,small-first,on", *few, *where)
    rows = out.strip().splitlines()[-3:]
    assert code == 0 and [r.split(" | ")[1] for r in rows] == ["4", "8", "4"]
    code, _, err = run(capsys, "compare", "--only", "nose", *few, *where)
    assert code == 2 and "no choice 'nose'" in err
