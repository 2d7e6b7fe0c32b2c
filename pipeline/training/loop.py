"""The training loop that every stage uses: progress, log, EMA, checkpoints, exact resume.

All randomness of step n comes from one generator seeded by (seed, n). A resumed run therefore needs
no stored random state, and ends with the same weights as an unbroken one.

A checkpoint is one safetensors file: weights `model.*`, EMA weights `ema.*`, optimizer state
`optimizer.INDEX.*`, and in its header `step`, `seconds` and `config`. It is written under a
temporary name, flushed to disk and renamed, so that a kill at any moment leaves the previous one.
"""

from __future__ import annotations

import contextlib
import csv
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


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator of training step `step`, distinct for each (seed, step)."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) & (2**63 - 1))


def save_atomically(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file so that `path` is either the old or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, part, metadata)
    with open(part, "rb") as handle:
        os.fsync(handle.fileno())
    os.chmod(part, 0o644)
    os.replace(part, path)


class Ema:
    """Exponential moving average of a module's parameters, in float32.

    The decay of step n is min(decay, (1 + n) / (10 + n)), so that the first weights do not dominate
    a short run.
    """

    def __init__(self, module: torch.nn.Module, decay: float = 0.9995):
        self.decay = decay
        self.shadow = {k: p.detach().clone().float() for k, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move the averages towards the parameters after step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        names, live = zip(*module.named_parameters(), strict=True)
        torch._foreach_lerp_([self.shadow[n] for n in names], [p.detach() for p in live], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Set the parameters to their averages."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.shadow[name])


class Trainer:
    """Minimizes the "loss" that `step_fn(generator, step)` returns.

    step_fn: its other entries are only logged. config: stored in the checkpoint; a run with another
    config cannot be resumed. batch: pictures per step, for the images/s figure. clip: the largest
    norm of the gradients. sample_fn(step): called every `sample_seconds` and at the end.
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
        folder.mkdir(parents=True, exist_ok=True)

    # ---- checkpoints --------------------------------------------------------------------------

    def _state(self) -> dict[str, torch.Tensor]:
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.shadow.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        return tensors

    def save(self) -> Path:
        """Write a checkpoint, remove all but the newest two, and return its path."""
        path = self.folder / f"checkpoint-{self.step:08d}.safetensors"
        header = {"step": str(self.step), "seconds": str(self.seconds)}
        header["config"] = json.dumps(self.config)
        save_atomically(self._state(), path, header)
        for old in checkpoints(self.folder)[:-2]:
            old.unlink(missing_ok=True)
        return path

    def resume(self) -> bool:
        """Load the newest checkpoint; return False where there is none.

        Raises ValueError, naming the settings that differ, where `config` is another.
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
        self.step, self.seconds = int(header["step"]), float(header["seconds"])
        return True

    # ---- the loop -----------------------------------------------------------------------------

    def train(self, *, minutes: float | None = None, steps: int | None = None) -> None:
        """Train for `minutes` more, or up to step `steps` in all.

        SIGINT and SIGTERM stop it after the step at hand, with a checkpoint.
        """
        stop = {"now": False}

        def ask_to_stop(*_: object) -> None:
            stop["now"] = True

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
            while not stop["now"]:
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
        """Do one step and return what `step_fn` gave, as numbers."""
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
    """The CSV log beside the checkpoints. A resumed run drops rows after its step and appends."""

    def __init__(self, path: Path, step: int):
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.exists() and step:
            with path.open(newline="") as file:
                self.rows = [r for r in csv.DictReader(file) if int(r["step"]) <= step]
        if self.rows:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)
        self.file = path.open("a" if self.rows else "w", newline="")
        self.writer: csv.DictWriter[str] | None = None

    def write(self, step: int, seconds: float, speed: float, losses: dict[str, float]) -> None:
        """Append a row; speed is in images per second. The first row gives the columns."""
        row: dict[str, float] = {
            "step": step,
            "seconds": round(seconds, 1),
            "images_per_second": round(speed, 1),
        }
        row |= {k: round(v, 6) for k, v in losses.items()}
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(row))
            if not self.rows:
                self.writer.writeheader()
        self.writer.writerow(row)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that can be read; None where there is none."""
    for path in reversed(checkpoints(folder)):
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
            if "step" in (file.metadata() or {}):
                return path
    return None


def load_ema(module: torch.nn.Module, folder: Path) -> int:
    """Load the newest checkpoint's EMA weights into `module` and return its step.

    Raises FileNotFoundError in one sentence where there is none, or one of another network.
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
