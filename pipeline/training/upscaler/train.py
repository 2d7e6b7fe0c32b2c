"""The training of the pixel upscaler, 128 to 256 pixels; see crops.py for what it trains on.

L1 on crops, so that sharp edges count and outliers do not dominate; Adam; averaged weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ...images.upscaler import Upscaler
from ..loop import Trainer
from .crops import CropSource

RATE_DECAY_STEPS = 1000  # the rate falls with (1 + step / RATE_DECAY_STEPS)^-0.5


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
    """Return the trainer of the upscaler; its checkpoints go into `folder`.

    loop: further arguments of Trainer.
    """
    # mypy knows no overload of `to` with a device and a memory format.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99))

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        for group in optimizer.param_groups:  # the loop has just set the rate
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
