"""Each stage with its real network and optimizer: 2n steps, or n, resume, n, give equal bits."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from pipeline.images.upscaler import Upscaler
from pipeline.training import tiny
from pipeline.training.emoji import clip, export, tokenizer, unet, vae
from pipeline.training.emoji.latent_pool import LatentPool
from pipeline.training.loop import CsvLog, Trainer, newest_checkpoint
from pipeline.training.upscaler import crops
from pipeline.training.upscaler.train import make_trainer as make_upscaler_trainer

HALF = 2  # steps before the resume, and as many after it


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(newest_checkpoint(folder), "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118


def differences(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors of which some bit differs."""
    assert a.keys() == b.keys()
    return [k for k in a if a[k].numpy().tobytes() != b[k].numpy().tobytes()]


@pytest.fixture(scope="module")
def make_trainer(tiny_data, vocabulary, composer, words) -> Callable[..., Trainer]:
    """A function (stage, folder, seed of the initial weights) that returns the stage's trainer."""
    encoder = tokenizer.load(words)
    torch.manual_seed(1)
    text_tower, _ = export.split_towers(clip.build(encoder))
    autoencoder = vae.build().eval()
    pairs = clip.PairSource(tiny_data, vocabulary)
    pictures = vae.PictureSource(tiny_data, vocabulary)
    learned, _ = crops.split_emojis(tiny_data)
    renderer = crops.SceneRenderer(crops.load_sprites_8bit(tiny_data, learned[:12]))

    def make(stage: str, folder: Path, seed: int = 3) -> Trainer:
        torch.manual_seed(seed)
        if stage == "clip":
            return clip.make_trainer(clip.build(encoder), encoder, pairs, folder, batch=4)
        if stage in ("vae", "decoder"):
            frozen = stage == "decoder"
            return vae.make_trainer(vae.build(), pictures, folder, batch=2, decoder_only=frozen)
        if stage == "upscaler":
            source = crops.CropSource(renderer, autoencoder)
            return make_upscaler_trainer(Upscaler(), source, folder, batch=2)
        pool = LatentPool(composer, autoencoder, 8, 0.5, 64)
        how = {"batch": 2, "refresh": HALF + 1}  # the pool is filled anew after the resume
        return unet.make_trainer(unet.build(), pool, vocabulary, encoder, text_tower, folder, **how)

    return make


@pytest.mark.parametrize("stage", ["clip", "vae", "decoder", "unet", "upscaler"])
def test_resuming_is_exact_with_the_real_network(stage, make_trainer, tmp_path):
    make_trainer(stage, tmp_path / "whole").train(steps=2 * HALF)
    make_trainer(stage, tmp_path / "parts").train(steps=HALF)
    resumed = make_trainer(stage, tmp_path / "parts", seed=99)
    assert resumed.resume() and resumed.step == HALF
    resumed.train(steps=2 * HALF)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert any(k.startswith("optimizer.") for k in whole)
    assert differences(whole, parts) == []


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_moments_keep_the_layout_of_their_parameters(tmp_path, kind, fused):
    """Any layout: channels last, transposed, with one channel; also a single number."""

    def make(folder: Path) -> Trainer:
        torch.manual_seed(0)
        model = torch.nn.Module()
        model.last = torch.nn.Parameter(
            torch.randn(4, 3, 3, 2).contiguous(memory_format=torch.channels_last)
        )
        model.turned = torch.nn.Parameter(torch.randn(5, 7).T)
        model.thin = torch.nn.Parameter(torch.randn(3, 1, 2, 2))
        model.scale = torch.nn.Parameter(torch.tensor(2.0))
        optimizer = kind(model.parameters(), lr=0.1, fused=fused)

        def step(generator, _):
            parts = [
                (p * torch.randn(p.shape, generator=generator)).sum() ** 2
                for p in model.parameters()
            ]
            return {"loss": torch.stack(parts).sum()}

        return Trainer(folder, model, optimizer, step, config={"seed": 1}, batch=1)

    make(tmp_path / "whole").train(steps=6)
    make(tmp_path / "parts").train(steps=3)
    resumed = make(tmp_path / "parts")
    resumed.resume()
    for parameter, state in resumed.optimizer.state.items():
        assert state["exp_avg"].stride() == parameter.stride()
    resumed.train(steps=6)
    assert differences(tensors(tmp_path / "whole"), tensors(tmp_path / "parts")) == []


def test_a_lora_of_the_embedded_model_resumes_exactly(tmp_path, monkeypatch):
    from pipeline import load
    from pipeline.training.lora import train as lora

    monkeypatch.chdir(tmp_path)
    models = load("emoji", device="cpu")
    pictures = [Image.new("RGB", (128, 128), (60 * i, 90, 200)) for i in range(3)]

    def options(name: str, resume: bool = False) -> lora.LoraOptions:
        return lora.LoraOptions(
            pictures, name, "a zog", steps=2 * HALF, batch=2, rank=2, resume=resume
        )

    list(lora.train(models, options("whole")))
    events = lora.train(models, options("parts"))
    assert [e.step for e in islice(events, HALF)] == [1, 2]
    events.close()
    torch.manual_seed(99)
    steps = list(lora.train(load("emoji", device="cpu"), options("parts", resume=True)))
    assert [e.step for e in steps[:-1]] == [3, 4]
    whole, parts = tensors(Path("runs/lora/whole")), tensors(Path("runs/lora/parts"))
    assert differences(whole, parts) == []


def test_the_tiny_models_training_goes_on_exactly_after_a_pause_and_snapshots():
    """It has no checkpoints: it is left alone for a while, and other code draws random numbers."""
    *_, whole = tiny.train(steps=6, seed=5, every=6)
    paused = tiny.train(steps=6, seed=5, every=2)
    for snapshot in paused:
        torch.manual_seed(snapshot.step)
        torch.randn(100)
    assert snapshot.step == 6 and snapshot.losses == whole.losses
    assert snapshot.samples.numpy().tobytes() == whole.samples.numpy().tobytes()


ROWS = "step,seconds,images_per_second,loss\n50,1.0,2.0,0.5\n100,2.0,2.0,0.4\n"


@pytest.mark.quick
@pytest.mark.parametrize(
    "end", ["150,3.0", "150", "15", "150,3.0,2.0,0.3", "\0\0\0", "150,3.0\n", "x,1,2,3\n", ","]
)
def test_a_log_whose_last_row_is_cut_off_does_not_stop_a_resume(tmp_path, end):
    path = tmp_path / "log.csv"
    path.write_text(ROWS + end)
    log = CsvLog(path, 150)
    log.write(200, 4.0, 2.0, {"loss": 0.2})
    log.close()
    assert path.read_text().replace("\r", "") == ROWS + "200,4.0,2.0,0.2\n"


def test_files_half_written_by_a_killed_process_are_removed(make_trainer, tmp_path):
    trainer = make_trainer("upscaler", tmp_path)
    trainer.train(steps=1)
    (tmp_path / ".checkpoint-00000002.safetensors.part").write_bytes(b"half")
    (tmp_path / ".preview-000001.png.part").write_bytes(b"half")
    assert make_trainer("upscaler", tmp_path).resume()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000001.safetensors",
        "log.csv",
    ]
