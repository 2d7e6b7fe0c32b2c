"""The upscaler's training: who is held out, what it sees, exact resume, and the command line."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.__main__ import main
from pipeline.images import upscaler
from pipeline.training.emoji.scenes import random_scene
from pipeline.training.emoji.vocabulary import OBJECTS
from pipeline.training.upscaler import cli, crops, evaluate
from pipeline.training.upscaler.train import make_trainer


@pytest.fixture(scope="module")
def few(tiny_data):
    learned, _ = crops.split_emojis(tiny_data)
    return crops.SceneRenderer(crops.load_sprites_8bit(tiny_data, learned[:12]))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_held_out_emoji_are_never_learned_from(tiny_data):
    learned, held = crops.split_emojis(tiny_data)
    assert not {e[0] for e in learned} & {e[0] for e in held}
    assert sorted(learned + held) == sorted(e for group in OBJECTS.values() for e in group)
    assert len(held) == -(-len(learned + held) // crops.HOLD_OUT_EVERY)


def test_scenes_are_those_of_the_model_at_twice_the_size(tiny_data, vocabulary, composer):
    """Against the composer that the embedded model learned from."""
    emojis = [t.emoji for t in vocabulary.objects[:20]]
    renderer = crops.SceneRenderer(crops.load_sprites_8bit(tiny_data, emojis))
    for seed in range(6):
        scene = random_scene(20, generator(seed))
        small = crops.downscale(renderer.draw(scene))
        expected = composer.draw([scene])[0] / 2 + 0.5
        assert evaluate.psnr(small, expected) > 45
        assert evaluate.psnr(small.roll(1, 2), expected) < 42  # a pixel aside


def test_small_and_large_crop_show_the_same(few, monkeypatch):
    monkeypatch.setattr(crops, "AUTOENCODED", 0)
    monkeypatch.setattr(crops, "DEGRADED", 0)
    small, truth = crops.CropSource(few, None)(16, generator(5))
    assert small.shape == (16, 3, 48, 48) and truth.shape == (16, 3, 96, 96)
    error = (F.avg_pool2d(truth, 2) - small).abs().mean((1, 2, 3))
    assert error.max() < 0.02
    assert small.var((2, 3)).mean((0, 1)) > 1e-3  # not the empty ground


@pytest.mark.quick
def test_damage_is_small_and_repeatable(few):
    small = crops.downscale(few.draw_free(generator(1)))
    seen = [crops.degrade(small, generator(seed)) for seed in range(8)]
    for seed, picture in enumerate(seen):
        assert 0 < (picture - small).abs().mean() < 0.05
        assert torch.equal(picture, crops.degrade(small, generator(seed)))


def test_psnr_and_where_objects_are():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 20, 30))
    expected = 10 * np.log10(1 / np.mean((a - b) ** 2))
    both = torch.from_numpy(a), torch.from_numpy(b)
    assert evaluate.psnr(*both) == pytest.approx(expected)
    assert evaluate.psnr(both[0], both[0]) == pytest.approx(100)
    picture = torch.full((3, 40, 40), 0.25)
    picture[1, 20, 30] = 1
    found = evaluate.object_mask(picture)
    wide = evaluate.MARGIN
    assert found[20 - wide : 21 + wide, 30 - wide : 31 + wide].all()
    assert found.sum() == (2 * wide + 1) ** 2
    other = picture.clone()
    other[:, 0, 0] = 0  # far from the object
    assert evaluate.psnr(picture, other, found) == pytest.approx(100)


def test_a_resumed_run_ends_as_an_unbroken_one(few, tmp_path):
    def trained(folder, *until):
        for steps in until:
            torch.manual_seed(0)
            model = upscaler.Upscaler(channels=6, blocks=1)
            trainer = make_trainer(model, PlainCrops(few), tmp_path / folder, batch=2)
            trainer.resume()
            trainer.train(steps=steps)
        return trainer

    whole, broken = trained("whole", 4), trained("broken", 2, 4)
    assert whole.step == broken.step == 4
    for name, weight in whole.ema.shadow.items():
        assert torch.equal(weight, broken.ema.shadow[name]), name
    first = upscaler.Upscaler(channels=6, blocks=1)
    assert not torch.equal(first.tail.weight, whole.module.tail.weight)


class PlainCrops(crops.CropSource):
    """Crops without an autoencoder."""

    def __init__(self, renderer):
        super().__init__(renderer, None)

    def _crop_scene(self, generator):
        truth = self.renderer(generator)
        return [crops.crop_pair(crops.downscale(truth), truth, generator)]


def run(capsys, *argv):
    code = main(["train", *(str(a) for a in argv)])
    out, err = capsys.readouterr()
    return code, out, err.strip().splitlines()[-1] if err.strip() else ""


def test_trained_exported_and_measured_from_the_command_line(
    capsys, tmp_path, tiny_data, monkeypatch
):
    monkeypatch.setattr(evaluate, "TIMED_SIDES", (8,))
    split = crops.split_emojis
    for module in (cli, evaluate):
        monkeypatch.setattr(
            module, "split_emojis", lambda folder: tuple(p[:8] for p in split(folder))
        )
    where = ["--run", tmp_path / "run", "--data", tiny_data, "--model", tmp_path / "model"]
    code, _, err = run(capsys, "export-upscaler", *where)
    assert code == 2 and "holds no checkpoint: train that stage first" in err
    code, _, err = run(capsys, "upscaler", *where)
    assert code == 2 and "--minutes N or --steps N" in err
    where += ["--device", "cpu", "--batch", 2]
    assert run(capsys, "upscaler", "--steps", 1, *where)[0] == 0
    code, _, err = run(capsys, "upscaler", "--steps", 2, *where)
    assert code == 2 and "--resume" in err
    assert run(capsys, "upscaler", "--steps", 2, "--resume", *where)[0] == 0

    sheet = tmp_path / "sheet.png"
    code, out, _ = run(capsys, "export-upscaler", "--count", 1, "--sheet", sheet, *where)
    assert code == 0 and "| scenes of held-out emoji |" in out and sheet.exists()
    made = json.loads((tmp_path / "model/training.json").read_text())
    assert made["steps"] == 2 and made["crops"] == 4
    card = (tmp_path / "model/README.md").read_text(encoding="utf-8")
    assert out.strip() in card and "2 steps, 4 crops" in card
    assert upscaler.load(folder=tmp_path / "model").config == upscaler.Upscaler().config

    (tmp_path / "model/README.md").unlink()
    code, again, _ = run(capsys, "evaluate-upscaler", "--count", 1, *where)
    assert code == 0 and again.splitlines()[:5] == out.splitlines()[:5]
    assert (tmp_path / "model/README.md").exists()
