"""The training loop of all networks: progress bar, CSV log, EMA, checkpoints, exact resume.

All random numbers of step n come from one generator seeded by (seed, n). A resumed run therefore
needs no stored random state and ends with the same weights as an uninterrupted one.

A checkpoint is one safetensors file: weights `model.*`, EMA weights `ema.*`, optimizer state
`optimizer.INDEX.*`, and in its header `step`, `seconds` and `config`. It is written under a
temporary name, flushed to disk and renamed, so if the process is killed at any moment, the previous
checkpoint is still intact.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from ..disk import explain_failure, make_folder, remove, write_file


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU random generator for training step `step`, seeded by (`seed`, `step`).

    A resumed training thus draws the same random numbers as an uninterrupted one.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + step) & (2**63 - 1))


def save_atomically(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str], *, more: str = ""
) -> None:
    """Write `tensors` and `metadata` to the safetensors file `path`, replacing it atomically.

    If the process is killed meanwhile, `path` is the complete old file or the complete new one.
    Raises InputError if it cannot be written (disk full); an old file at `path` then stays. more:
    appended to that sentence.
    """

    def write(part: Path) -> None:
        save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, part, metadata)
        os.chmod(part, 0o644)

    write_file(path, write, durable=True, more=more)


class Ema:
    """Exponential moving average of a module's parameters in training, in float32.

    Samples and exported models use the averages. The decay at step n is min(decay, (1 + n) / (10 +
    n)), so that the initial weights do not dominate a short run. `shadow` is a dict from parameter
    name to average.
    """

    def __init__(self, module: torch.nn.Module, decay: float = 0.9995):
        self.decay = decay
        self.shadow = {k: p.detach().clone().float() for k, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move the averages towards the parameters of `module`, after a training step.

        step: number of training steps done, which sets the decay.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        names, live = zip(*module.named_parameters(), strict=True)
        torch._foreach_lerp_([self.shadow[n] for n in names], [p.detach() for p in live], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Overwrite the parameters of `module` with their averages."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.shadow[name])


class Trainer:
    """The training loop of all networks: trains `module`; checkpoints and log.csv go into `folder`.

    step_fn(generator, step) computes one batch's losses as a dict of scalars: "loss" is minimized
    by `optimizer`, the others are only logged. config: JSON values stored in checkpoints; only a
    run with an equal config can resume from one, and its "seed" seeds every step. batch: pictures
    per step, for the images/s figure. warmup: steps over which the learning rate rises linearly.
    clip: maximal gradient norm. ema_decay: of the averaged weights. checkpoint_steps: steps between
    checkpoints; None saves every `checkpoint_seconds` instead. sample_fn(step) draws sample
    pictures; called every `sample_seconds` and at the end.
    """

    def __init__(
        self,
        folder: Path,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        step_fn: Callable[[torch.Generator, int], dict[str, torch.Tensor]],
        *,
        config: dict[str, Any],
        batch: int,
        warmup: int = 100,
        clip: float = 1.0,
        ema_decay: float = 0.9995,
        checkpoint_seconds: float = 180,
        checkpoint_steps: int | None = None,
        sample_fn: Callable[[int], None] | None = None,
        sample_seconds: float = 600,
    ):
        self.folder, self.module, self.optimizer, self.step_fn = folder, module, optimizer, step_fn
        self.config, self.batch, self.warmup, self.clip = config, batch, warmup, clip
        self.checkpoint_seconds, self.checkpoint_steps = checkpoint_seconds, checkpoint_steps
        self.sample_fn, self.sample_seconds = sample_fn, sample_seconds
        self.ema = Ema(module, ema_decay)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.step, self.seconds = 0, 0.0
        self.stopped = False  # whether a signal has ended the training
        make_folder(folder)
        for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
            remove(part)

    # ---- checkpoints --------------------------------------------------------------------------

    def _state(self) -> dict[str, torch.Tensor]:
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.shadow.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        return tensors

    def save(self) -> Path:
        """Save the training's state as a checkpoint in the trainer's folder; return its path.

        Deletes all but the newest two checkpoints. Raises InputError if it cannot be written (disk
        full); the previous checkpoint then stays.
        """
        path = self.folder / f"checkpoint-{self.step:08d}.safetensors"
        header = {"step": str(self.step), "seconds": str(self.seconds)}
        header["config"] = json.dumps(self.config)
        save_atomically(self._state(), path, header, more=_what_stays(self.folder))
        for old in checkpoints(self.folder)[:-2]:
            old.unlink(missing_ok=True)
        return path

    def resume(self) -> bool:
        """Load the newest checkpoint in the trainer's folder; return False if there is none.

        Raises ValueError, naming the settings that differ, if the checkpoint was trained with
        another `config`.
        """
        path = newest_checkpoint(self.folder)
        if path is None:
            return False
        with safe_open(path, "pt") as file:
            header = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        stored = json.loads(header["config"])
        differ = [k for k in self.config if stored.get(k) != self.config[k]]
        if differ:
            raise ValueError(
                f"{path.name} was trained with other settings ("
                + ", ".join(f"{k}: {stored.get(k)} there, {self.config[k]} now" for k in differ)
                + "); start afresh without --resume or use the same settings."
            )
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
        for key, value in tensors.items():
            kind, name = key.split(".", 1)
            parts[kind][name] = value
        self.module.load_state_dict(parts["model"])
        for name, shadow in self.ema.shadow.items():
            shadow.copy_(parts["ema"][name])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._arrange_moments()
        self.step, self.seconds = int(header["step"]), float(header["seconds"])
        return True

    def _arrange_moments(self) -> None:
        """Give each of the optimizer's moments, just loaded, the memory layout of its parameter.

        Files hold contiguous tensors, but parameters may have their channels last, as moments that
        the optimizer made itself then have. Fused optimizers go through parameter, gradient and
        moments in the order of memory, so with another layout they mix up the elements.
        """
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape:
                    like = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
                    state[name] = like.copy_(value)

    # ---- the loop -----------------------------------------------------------------------------

    def train(self, *, minutes: float | None = None, steps: int | None = None) -> None:
        """Train for `minutes` from now or until step `steps`, whichever comes first.

        None means no such limit; `steps` includes those done before a resume. SIGINT and SIGTERM
        finish the current step, save a checkpoint and return, and `stopped` is True then; without
        both limits only they end the training. Raises InputError if checkpoint, log or sample
        pictures cannot be written.
        """
        self.stopped = False

        def ask_to_stop(*_: object) -> None:
            self.stopped = True

        try:
            handlers = {s: signal.signal(s, ask_to_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread, which alone may handle signals
            handlers = {}
        begin = saved = sampled = time.monotonic()
        before = self.seconds
        log = CsvLog(self.folder / "log.csv", self.step)
        bar = tqdm(total=steps, initial=self.step, unit="step", mininterval=1, dynamic_ncols=True)
        mean = None
        try:
            while not self.stopped:
                now = time.monotonic()
                if steps is not None and self.step >= steps:
                    break
                if minutes is not None and now - begin >= minutes * 60:
                    break
                losses = self.run_step()
                mean = losses["loss"] if mean is None else 0.98 * mean + 0.02 * losses["loss"]
                self.seconds = before + time.monotonic() - begin
                speed = self.batch / max(time.monotonic() - now, 1e-9)
                bar.update()
                bar.set_postfix_str(f"loss {mean:.4f}, {speed:.0f} images/s", refresh=False)
                if self.step % 50 == 0:
                    log.write(self.step, self.seconds, speed, {**losses, "mean": mean})
                due = time.monotonic() - saved >= self.checkpoint_seconds
                if self.checkpoint_steps is not None:
                    due = self.step % self.checkpoint_steps == 0
                if due:
                    self.save()
                    saved = time.monotonic()
                if self.sample_fn and time.monotonic() - sampled >= self.sample_seconds:
                    self.sample_fn(self.step)
                    sampled = time.monotonic()
        finally:
            bar.close()
            log.close()
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
        self.save()
        if self.sample_fn:
            self.sample_fn(self.step)

    def run_step(self) -> dict[str, float]:
        """Do one training step and update the averaged weights; return {name of a loss: value}."""
        warm = min(1.0, (self.step + 1) / self.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warm
        seed = self.config.get("seed", 0)
        losses = self.step_fn(step_generator(seed, self.step), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.module, self.step)
        return {k: float(v.detach()) for k, v in losses.items()}


class CsvLog:
    """Writes the log of a training run, the CSV file `path`: speed and losses at some steps.

    step: the step that the run resumes from; an old log's rows up to it stay, those after it are
    dropped, and so are rows that were not written completely. With step 0 the log starts empty.
    Raises InputError if the log cannot be written.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        self.columns, rows = _read_log(path, step) if step else ([], [])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        if rows:
            writer.writeheader()
            writer.writerows(rows)
        content = text.getvalue().encode()
        write_file(path, lambda part: part.write_bytes(content))
        with explain_failure(path):
            self.file = path.open("ab", buffering=0)

    def write(self, step: int, seconds: float, speed: float, losses: dict[str, float]) -> None:
        """Append a row to the training log; the first row written defines the columns.

        step, seconds: training so far; speed: images per second; losses: dict from column name to
        value. Raises InputError if the row cannot be written; the log then ends with the row
        before.
        """
        row: dict[str, float] = {
            "step": step,
            "seconds": round(seconds, 1),
            "images_per_second": round(speed, 1),
        }
        row |= {k: round(v, 6) for k, v in losses.items()}
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns or list(row))
        if not self.columns:
            self.columns = list(row)
            writer.writeheader()
        writer.writerow(row)
        content, before = text.getvalue().encode(), self.file.seek(0, os.SEEK_END)
        with explain_failure(self.path, _what_stays(self.path.parent)):
            try:
                while content:
                    content = content[self.file.write(content) :]
            except OSError:
                self.file.truncate(before)
                raise

    def close(self) -> None:
        """Close the log file."""
        self.file.close()


def _read_log(path: Path, step: int) -> tuple[list[str], list[dict[str, str]]]:
    """Return (names of the columns, complete rows up to `step`) of a log, ([], []) if none.

    Rows are dicts from column to text.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "?")
    except OSError:
        return [], []
    whole = text[: text.rfind("\n") + 1]  # the last row lacks its end if it was cut off
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    rows = [
        row
        for row in reader
        if None not in row and None not in row.values() and row.get("step", "").isdigit()
    ]
    rows = [row for row in rows if int(row["step"]) <= step]
    return (list(reader.fieldnames or []), rows) if rows else ([], [])


def _what_stays(folder: Path) -> str:
    """Return the end of the sentence on a failed write: which checkpoint of `folder` is left."""
    last = newest_checkpoint(folder)
    if last is None:
        return " No checkpoint was saved before: make room and start again."
    return f" {last.name} stays: make room and resume."


def checkpoints(folder: Path) -> list[Path]:
    """Return the paths of a training run's checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the path of a training run's newest readable checkpoint in `folder`, None if none."""
    for path in reversed(checkpoints(folder)):
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
            if "step" in (file.metadata() or {}):
                return path
    return None


def load_ema(module: torch.nn.Module, folder: Path) -> int:
    """Load a training run's averaged (EMA) weights into `module`; return the step they are from.

    They are those of the newest checkpoint in `folder`. Raises FileNotFoundError if there is none,
    or if it is of another network and lacks parameters of `module`.
    """
    path = newest_checkpoint(folder)
    if path is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint: train that stage first.")
    with safe_open(path, "pt") as file:
        state = {k[4:]: file.get_tensor(k) for k in file.keys() if k.startswith("ema.")}  # noqa: SIM118
        missing = module.load_state_dict(state, strict=False).missing_keys
        if missing:
            buffers = dict(module.named_buffers())
            missing = [k for k in missing if k not in buffers]
        if missing:
            raise FileNotFoundError(f"{path.name} lacks {missing[0]}: it is of another network.")
        return int(file.metadata()["step"])
