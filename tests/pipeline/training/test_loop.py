"""The loop: a kill at any moment leaves a loadable checkpoint, and resuming is exact."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.training.loop import Ema, Trainer, checkpoints, load_ema, newest_checkpoint

STEPS = 24


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


# A parent that imports everything and decodes the pictures once and forks the real command: each
# child is killed for real, without ten times the start-up. Every other one is killed at a random
# moment after its first checkpoint, however busy the machine is, the rest at any moment at all.
FORKS = """
    import os, random, signal, sys, time
    from pathlib import Path
    import pipeline.training.cli
    from pipeline.__main__ import main
    from pipeline.training import loop
    from pipeline.training.emoji import scenes, sprites, vae
    from pipeline.training.emoji.vocabulary import Vocabulary
    folder, archives, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
    argv = ["train", "vae", "--run", folder, "--data", archives, "--batch", "1", "--steps", "STEPS",
            "--checkpoint-steps", "1", "--device", "cpu"]
    random.seed(int(sys.argv[4]))
    emojis = [o.emoji for o in Vocabulary.from_packages(Path(archives)).objects]
    read = sprites.load_sprites
    sides = (scenes.SINGLE_SIDE, scenes.PAIR_SIDE)
    cache = {side: read(Path(archives), emojis, side) for side in sides}
    cache[scenes.SIZE] = read(Path(archives), None, scenes.SIZE)
    scenes.load_sprites = vae.load_sprites = lambda folder, emojis, side: cache[side].clone()
    pictures = vae.PictureSource.__call__  # few for the sample sheet of every checkpoint
    vae.PictureSource.__call__ = lambda self, count, g: pictures(self, min(count, 4), g)
    def train(resume):
        child = os.fork()
        if child == 0:
            os.environ["OMP_NUM_THREADS"] = "1"
            import torch
            torch.set_num_threads(1)
            code = 1
            try:
                code = main(argv + (["--resume"] if resume else []))
            finally:
                os._exit(code)
        return child
    def newest():
        return loop.newest_checkpoint(Path(folder) / "vae")
    def over(child):
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    for kill in range(kills):
        before, until = newest(), time.monotonic() + 60
        child = train(kill > 0)
        while kill % 2 and newest() == before and not over(child) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.2 if kill % 2 else 0.8))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)
        sys.stdin.readline()
    _, status = os.waitpid(train(kills > 0), 0)
    print("done", os.waitstatus_to_exitcode(status), flush=True)
"""


def forks(folder: Path, data: Path, kills: int, seed: int):
    script = textwrap.dedent(FORKS).replace("STEPS", str(STEPS))
    argv = [sys.executable, "-c", script, str(folder), str(data), str(kills), str(seed)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_ten_kills_never_leave_an_unloadable_checkpoint_and_resuming_ends_the_same(
    tmp_path, tiny_data
):
    from pipeline.training.emoji import vae

    seed = random.randrange(2**32)
    print("kill seed", seed)
    process = forks(tmp_path / "killed", tiny_data, 10, seed)
    steps = []
    for _ in range(10):
        line = _word(process)
        assert line in ("killed", "ended"), line
        if newest_checkpoint(tmp_path / "killed" / "vae"):
            steps.append(load_ema(vae.build(), tmp_path / "killed" / "vae"))
        process.stdin.write("\n")
        process.stdin.flush()
    assert _word(process) == "done 0"
    process.wait()
    assert steps and steps == sorted(steps)
    unbroken = forks(tmp_path / "whole", tiny_data, 0, 0)
    assert _word(unbroken) == "done 0"
    unbroken.wait()
    killed, whole = tensors(tmp_path / "killed/vae"), tensors(tmp_path / "whole/vae")
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[k], whole[k]) for k in whole)
    assert (tmp_path / "killed/vae/final/config.json").exists()


def _word(process: subprocess.Popen) -> str:
    """The next line that the parent itself printed; the trainer prints lines of its own."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        line = process.stdout.readline()
        if not line:
            return "the parent ended"
        if line.strip() in ("killed", "ended") or line.startswith("done"):
            return line.strip()
    return "no answer"
