"""The loop: a kill at any moment leaves a loadable checkpoint, and resuming is exact."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.errors import InputError
from pipeline.training import loop
from pipeline.training.loop import Ema, Trainer, checkpoints, newest_checkpoint


def small(folder: Path, seed: int = 0, steps_between: int = 1) -> Trainer:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(generator, _):
        x = torch.randn(4, 3, generator=generator)
        return {"loss": (model(x) - x[:, :2]).square().mean()}

    config = {"seed": seed}
    return Trainer(
        folder, model, optimizer, step, config=config, batch=4, checkpoint_steps=steps_between
    )


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(newest_checkpoint(folder), "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118


@pytest.mark.quick
def test_resuming_is_exact(tmp_path):
    small(tmp_path / "whole").train(steps=9)
    for until in (4, 9):
        trainer = small(tmp_path / "parts")
        trainer.resume()
        trainer.train(steps=until)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys() and any(k.startswith("optimizer.") for k in whole)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_a_run_with_other_settings_is_not_resumed(tmp_path):
    small(tmp_path).train(steps=2)
    with pytest.raises(ValueError, match="seed: 0 there, 5 now"):
        small(tmp_path, seed=5).resume()


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path):
    small(tmp_path).train(steps=3)
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    trainer = small(tmp_path)
    assert trainer.resume() and trainer.step == 2


def test_old_checkpoints_are_removed(tmp_path):
    small(tmp_path).train(steps=6)
    assert len(checkpoints(tmp_path)) == 2


def test_sigterm_saves_and_stops(tmp_path):
    trainer = small(tmp_path, steps_between=1000)
    inner = trainer.step_fn

    def step(generator, number):
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(generator, number)

    trainer.step_fn = step
    trainer.train(steps=1000)
    assert trainer.step == 6 and newest_checkpoint(tmp_path).name.endswith("6.safetensors")


@pytest.mark.quick
def test_ema_follows_the_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    ema, expected = Ema(model, 0.9), 0.0
    for step in range(1, 30):
        torch.nn.init.constant_(model.weight, float(step))
        ema.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert abs(ema.shadow["weight"].item() - expected) < 1e-4
    ema.copy_to(model)
    assert abs(model.weight.item() - expected) < 1e-4


def test_log_is_one_csv_without_doubles(tmp_path):
    for until in (100, 200):
        trainer = small(tmp_path, steps_between=60)
        trainer.resume()
        trainer.train(steps=until)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [int(r.split(",")[0]) for r in rows[1:]] == [50, 100, 150, 200]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_a_training_with_a_sentence(tmp_path, monkeypatch):
    small(tmp_path).train(steps=2)
    save_file = loop.save_file
    for place in ("save_file", "fsync"):

        def half(tensors, path, metadata):
            path.write_bytes(b"half")
            full()

        with monkeypatch.context() as patch:
            patch.setattr(loop, "save_file", half if place == "save_file" else save_file)
            if place == "fsync":
                patch.setattr(os, "fsync", full)
            trainer = small(tmp_path)
            trainer.resume()
            with pytest.raises(InputError, match=r"No space left .*00000002\S* stays: make room"):
                trainer.train(steps=4)
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "checkpoint-00000001.safetensors",
            "checkpoint-00000002.safetensors",
            "log.csv",
        ]
    trainer = small(tmp_path)
    assert trainer.resume() and trainer.step == 2


def test_a_full_disk_cuts_no_row_of_the_log_in_half(tmp_path, monkeypatch):
    """The row that fails is taken back, and closing the log raises nothing of its own."""
    log = loop.CsvLog(tmp_path / "log.csv", 0)
    log.write(50, 1.0, 2.0, {"loss": 0.5})
    before, file = (tmp_path / "log.csv").read_text(), log.file

    class FullFile:
        def write(self, content):
            file.write(content[:5])
            full()

        def __getattr__(self, name):
            return getattr(file, name)

    log.file = FullFile()
    with pytest.raises(InputError, match=r"Cannot write .*log\.csv: No space left on device\. No"):
        log.write(100, 2.0, 2.0, {"loss": 0.4})
    log.close()
    assert (tmp_path / "log.csv").read_text() == before
