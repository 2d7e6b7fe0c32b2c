"""The training of the pixel upscaler, which doubles pictures; crops.py makes its training data.

The loss is L1 on crops, which keeps edges sharp and is robust to outliers. The optimizer is Adam;
the EMA of the weights is exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ...images.upscaler import Upscaler
from ..loop import Trainer
from .crops import CropSource

RATE_DECAY_STEPS = 1000  # learning rate = rate * (1 + step / RATE_DECAY_STEPS)^-0.5


def make_trainer(
    model: Upscaler,
    crops: CropSource,
    folder: Path,
    *,
    batch: int = 8,
    rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    **loop: Any,
) -> Trainer:
    """Return the upscaler's training loop, with L1 loss; checkpoints go into `folder`.

    model: the upscaler; crops: source of the training batches; batch: crops per step; rate: initial
    learning rate; loop: further keyword arguments of Trainer, such as `checkpoint_steps`.
    """
    # mypy knows no overload of `to` with a device and a memory format.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99))

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        for group in optimizer.param_groups:  # the loop has just reset it
            group["lr"] *= (1 + number / RATE_DECAY_STEPS) ** -0.5
        small, truth = (
            x.to(device, memory_format=torch.channels_last) for x in crops(batch, generator)
        )
        output = model(small)
        return {"loss": F.l1_loss(output, truth), "mse": F.mse_loss(output, truth)}

    config = {"batch": batch, "seed": seed, **model.config}
    return Trainer(
        folder, model, optimizer, step, config=config, batch=batch, ema_decay=0.998, **loop
    )
