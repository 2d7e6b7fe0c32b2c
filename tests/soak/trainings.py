"""Small trainings of every stage, for soak tests that kill them or fill the disk under them.

Data and networks are small; the commands, losses, optimizers, checkpoints and files are the real
ones. A parent process imports and prepares everything once, and forks a child for each run.
"""

# ruff: noqa: E402 - threads and messages are settled before torch is imported
from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import torch
import tqdm
from PIL import Image
from safetensors import safe_open

from pipeline.__main__ import main
from tests.conftest import write_tiny_model
from tests.pipeline.training.conftest import write_tiny_data

# Its thread would hold locks while a child is forked, which then waits for them for ever.
tqdm.tqdm.monitor_interval = 0

OBJECTS = 4  # of each group of the vocabulary
BATCH = {"clip": 4, "vae": 1, "decoder": 1, "unet": 2, "upscaler": 1}
STAGES = (*BATCH, "lora")
NEEDS = {  # stage: what of another run it reads
    "decoder": ("tokenizer", "vae"),
    "unet": ("tokenizer", "clip", "vae"),
    "export": ("tokenizer", "clip", "vae"),
}


class Trainings:
    """The commands that train each stage of a small model. folder: for data and prepared parts."""

    def __init__(self, folder: Path):
        torch.set_num_threads(1)  # a child of a process with more threads could wait for ever
        self.folder = folder
        _make_small()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        write_tiny_data(self.data)
        write_tiny_model(folder / "tiny")
        for i in range(3):
            (folder / "pictures").mkdir(exist_ok=True)
            Image.new("RGB", (64, 64), (70 * i, 90, 200)).save(folder / "pictures" / f"{i}.png")
        self.prepared = folder / "prepared"

    def prepare(self, stages: Iterable[str] = STAGES) -> None:
        """Train what `stages` read of others; read pictures and model once, for all children."""
        from pipeline import load
        from pipeline.training.emoji import scenes
        from pipeline.training.emoji.vocabulary import Vocabulary

        vocabulary = Vocabulary.from_packages(self.data)
        scenes.Composer(self.data, vocabulary)
        needed = {name for stage in stages for name in NEEDS.get(stage, ())}
        for stage in ("clip", "vae") if needed else ():
            code = run_child(lambda s=stage: self.train(s, self.prepared, 2))
            assert code == 0, f"{stage} cannot be prepared: exit status {code}"
        loaded = load(str(self.folder / "tiny"), device="cpu")
        import pipeline.loading.load as module

        module.load = lambda name, **_: loaded

    def start(self, stage: str, run: Path) -> None:
        """Create the folder of a new run, with what the stage reads of earlier ones."""
        run.mkdir(parents=True)
        for name in NEEDS.get(stage, ()):
            shutil.copytree(self.prepared / name, run / name)

    def checkpoints(self, stage: str, run: Path) -> Path:
        """Return the folder of the stage's checkpoints."""
        return run if stage == "lora" else run / stage

    def train(self, stage: str, run: Path, steps: int, every: int = 1) -> int:
        """Train a stage to the step `steps`, resumed where a checkpoint is; return the exit status.

        every: number of steps between checkpoints.
        """
        from pipeline.training.loop import newest_checkpoint

        argv = ["train", stage, "--run", str(run), "--steps", str(steps), "--device", "cpu"]
        argv += ["--checkpoint-steps", str(every)]
        if newest_checkpoint(self.checkpoints(stage, run)):
            argv.append("--resume")
        if stage == "lora":
            os.chdir(run)  # the LoRA's file is written to ./models
            argv += ["--images", str(self.folder / "pictures"), "--name", "zog", "--prompt", "zog"]
            argv += ["--rank", "2", "--batch", "1", "--layers", "all", "--size", "64"]
            argv += ["--prior-prompt", "an apple", "--prior-count", "2", "--previews", "2"]
            return main(argv)
        argv += ["--data", str(self.data), "--batch", str(BATCH[stage]), "--pool", "8"]
        return main([*argv, "--side", "64"] if stage == "unet" else argv)

    def export(self, run: Path, model: Path) -> int:
        """Write the trained model of `run` to the folder `model`; return the exit status."""
        argv = ["train", "export", "--run", str(run), "--model", str(model), "--device", "cpu"]
        return main([*argv, "--data", str(self.data)])


def fork(work: Callable[[], int], output: Path | None = None) -> int:
    """Run `work` in a child process and return its process id; its exit status is work's result.

    output: the file for all that it prints; None for nothing.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        descriptor = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_child(work: Callable[[], int], output: Path | None = None) -> int:
    """Run `work` in a child process to its end and return its exit status; see `fork`."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work, output), 0)[1])


def read(path: Path) -> dict[str, bytes]:
    """Return the bytes of each tensor of a safetensors file. Raises where it cannot be read."""
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k).numpy().tobytes() for k in file.keys()}  # noqa: SIM118


def _make_small() -> None:
    """Replace sizes of networks, data and sample sheets by small ones, in this process."""
    from pipeline.training.emoji import scenes, tokenizer, unet, vae, vocabulary
    from pipeline.training.upscaler import cli as upscaler_cli
    from pipeline.training.upscaler import crops

    for group, emojis in vocabulary.OBJECTS.items():
        vocabulary.OBJECTS[group] = emojis[:OBJECTS]
    split, load_sprites, cache = crops.split_emojis, scenes.load_sprites, {}
    upscaler_cli.split_emojis = lambda data: tuple(part[:4] for part in split(data))

    def load_once(data, emojis, side):
        key = None if emojis is None else tuple(emojis), side
        if key not in cache:
            cache[key] = load_sprites(data, emojis, side)
        return cache[key].clone()

    for module in (scenes, vae, crops):
        module.load_sprites = load_once
    tokenizer.train = functools.partial(tokenizer.train, captions=300)
    pictures = vae.PictureSource.__call__
    vae.PictureSource.__call__ = lambda self, count, g: pictures(self, min(count, 4), g)
    unet.build = functools.partial(unet.build, channels=(32, 32, 64))
    captions, draw = unet.sample_captions, unet.draw_samples
    unet.sample_captions = lambda words: captions(words)[:1]
    unet.draw_samples = functools.partial(draw, steps=2)
