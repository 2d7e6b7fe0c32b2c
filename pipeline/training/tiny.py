"""The smallest diffusion model that is one: 16x16 pixels, four shapes, about 100,000 parameters.

It learns in front of you: `python -m pipeline.training.tiny --seconds 60` writes a line of JSON for
every look at it. The picture `x0` and the noise `eps` are mixed at an angle, as in Salimans and Ho,
arXiv 2202.00512: x = cos(angle) x0 + sin(angle) eps, where 0 is the picture and 90 degrees noise.
The network sees x and the angle, is told the shape, and says which picture it believes in; the
noise is what remains. Within a minute this draws shapes where a network that predicts the velocity
still leaves speckles.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

SIDE = 16
SHAPES = ("disc", "square", "triangle", "ring")
WIDTH, DEEP, TIME = 28, 40, 64  # channels at 8x8, at 4x4, and of what is known about the angle
BATCH, RATE = 32, 3e-3
LEARNED = 2000  # steps after which the rate has halved
AVERAGE = 0.99  # of the weights that samples are drawn with
EACH = 6  # samples of a shape
SAMPLE_STEPS = 16
LOOK = 2.0  # seconds between two looks


def pictures(shapes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One picture for each of `shapes` (B,), as (B, 3, 16, 16) in -1..1: a shape of random colour,
    size and place on a plain ground of another brightness."""
    count = len(shapes)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator).view(count, -1, 1, 1)

    grid = torch.arange(SIDE) + 0.5
    size = 4.2 + 1.6 * uniform()  # half of the side, in pixels
    x = grid.view(1, 1, 1, SIDE) - SIDE / 2 - (uniform() - 0.5) * 3
    y = grid.view(1, 1, SIDE, 1) - SIDE / 2 - (uniform() - 0.5) * 3
    radius = (x**2 + y**2).sqrt()
    # How far outside of each shape a pixel lies, in pixels; half inside an edge is half covered.
    outside = torch.cat(
        [
            radius - size,
            torch.maximum(x.abs(), y.abs()) - 0.9 * size,
            torch.maximum((2 * x.abs() - y - size) / 5**0.5, y - 0.9 * size),
            (radius - 0.8 * size).abs() - 0.25 * size,
        ],
        1,
    )
    chosen = outside[torch.arange(count), shapes][:, None]
    cover = (0.5 - chosen).clamp(0, 1)
    dark, bright = uniform(3) * 0.7 - 1, uniform(3) * 0.7 + 0.3
    swap = uniform() < 0.5
    ground, colour = torch.where(swap, bright, dark), torch.where(swap, dark, bright)
    return ground + cover * (colour - ground)


class Block(nn.Module):
    """Two convolutions beside a shortcut; between them it hears the angle and the shape."""

    def __init__(self, inside: int, out: int):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(inside, out, 3, padding=1),
            nn.Conv2d(out, out, 3, padding=1),
        )
        self.norm, self.hear = nn.GroupNorm(4, out), nn.Linear(TIME, out)
        self.short = nn.Conv2d(inside, out, 1) if inside != out else nn.Identity()

    def forward(self, x: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.first(x)) + self.hear(heard)[:, :, None, None]
        return self.short(x) + self.second(F.silu(h))


class TinyUNet(nn.Module):
    """Down to 4x4 and up again, with a skip connection: x (B, 3, 16, 16) to the picture in it.

    Two by two pixels enter and leave as one place of 12 channels, which is a quarter of the work.
    """

    def __init__(self):
        super().__init__()
        self.shape = nn.Embedding(len(SHAPES), TIME)
        self.time = nn.Sequential(nn.Linear(TIME, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.enter = nn.Conv2d(12, WIDTH, 3, padding=1)
        self.down = Block(WIDTH, WIDTH)
        self.smaller = nn.Conv2d(WIDTH, DEEP, 3, stride=2, padding=1)
        self.middle = Block(DEEP, DEEP)
        self.up = Block(DEEP + WIDTH, WIDTH)
        self.leave = nn.Conv2d(WIDTH, 12, 3, padding=1)

    def forward(self, x: torch.Tensor, angle: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        """angle (B,) in radians, shape (B,) numbers of SHAPES."""
        heard = F.silu(self.time(waves(angle)) + self.shape(shape))
        high = self.down(self.enter(F.pixel_unshuffle(x, 2)), heard)
        low = self.middle(self.smaller(high), heard)
        back = F.interpolate(low, scale_factor=2.0, mode="nearest")
        out = self.leave(self.up(torch.cat([back, high], 1), heard))
        return F.pixel_shuffle(out, 2)


def waves(angle: torch.Tensor) -> torch.Tensor:
    """The angle (B,) as sines and cosines of growing frequency, (B, TIME)."""
    phases = angle[:, None] * torch.exp(torch.linspace(0, math.log(60), TIME // 2))
    return torch.cat([phases.sin(), phases.cos()], 1)


def noised(x0: torch.Tensor, eps: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """The mixture x of pictures and noise (B, 3, 16, 16) at angle (B,)."""
    return angle.cos().view(-1, 1, 1, 1) * x0 + angle.sin().view(-1, 1, 1, 1) * eps


@torch.no_grad()
def sample(net: TinyUNet, shapes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, 3, 16, 16) of `shapes` (B,) from noise alone, by DDIM in SAMPLE_STEPS steps."""
    x = torch.randn(len(shapes), 3, SIDE, SIDE, generator=generator)
    angles = torch.linspace(math.pi / 2, 0, SAMPLE_STEPS + 1)
    for now, following in pairwise(angles):
        x0 = net(x, now.expand(len(x)), shapes)
        eps = (x - now.cos() * x0) / now.sin()
        x = following.cos() * x0 + following.sin() * eps
    return x.clamp(-1, 1)


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far two sets of pictures (N, ...) and (M, ...) are apart as distributions; 0 where alike.

    2 E|a - b| - E|a - a'| - E|b - b'| over independent pairs, in units of a picture's root mean
    square difference. Szekely and Rizzo, J. Stat. Plan. Inference 143 (2013).
    """
    a, b = a.flatten(1), b.flatten(1)

    def within(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    apart = 2 * torch.cdist(a, b).mean() - within(a) - within(b)
    return float(apart) / a.shape[1] ** 0.5


@dataclass(frozen=True)
class Look:
    """How far it is. losses: the mean of each 20 steps so far; samples (4 EACH, 3, 16, 16), EACH of
    each shape; distance: `energy_distance` of samples to pictures it never saw."""

    step: int
    seconds: float
    losses: tuple[float, ...]
    samples: torch.Tensor = field(repr=False)
    distance: float


def train(
    *,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    every: int | None = None,
) -> Iterator[Look]:
    """Looks before the first step, every `every` steps (None: every LOOK seconds) and at the end.

    It ends after so many steps or seconds. With a seed and a number of steps, the result is always
    the same.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyUNet()
        shown = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
        )
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    held = pictures(torch.arange(256) % len(SHAPES), torch.Generator().manual_seed(2**31 + seed))
    began, looked, losses, step = time.monotonic(), 0.0, [], 0

    def look() -> Look:
        asked = torch.arange(len(SHAPES)).repeat_interleave(EACH)
        drawn = sample(shown, asked, torch.Generator().manual_seed(seed))
        means = tuple(sum(part) / len(part) for part in _parts(losses, 20))
        passed = time.monotonic() - began
        return Look(step, passed, means, drawn, energy_distance(drawn, held))

    yield look()
    while (steps is None or step < steps) and (
        seconds is None or time.monotonic() - began < seconds
    ):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 ** (step / LEARNED)
        shapes = torch.randint(len(SHAPES), (BATCH,), generator=generator)
        x0 = pictures(shapes, generator)
        eps = torch.randn(x0.shape, generator=generator)
        angle = torch.rand(BATCH, generator=generator) * math.pi / 2
        loss = F.mse_loss(net(noised(x0, eps, angle), angle, shapes), x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shown.update_parameters(net)
        losses.append(float(loss.detach()))
        step += 1
        now = time.monotonic() - began
        if step % every == 0 if every else now - looked >= LOOK:
            looked = now
            yield look()
    if losses and not (every and step % every == 0):
        yield look()


def _parts(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def sheet(samples: torch.Tensor, columns: int = EACH) -> Image.Image:
    """(N, 3, 16, 16) in -1..1 as one picture with a row for each shape."""
    rows = len(samples) // columns
    grid = samples.view(rows, columns, 3, SIDE, SIDE).permute(0, 3, 1, 4, 2)
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.reshape(rows * SIDE, columns * SIDE, 3).numpy(), "RGB")


def main() -> None:
    """Train, and write every look as a line of JSON; the samples as a PNG in base64."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.tiny", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for look in train(seconds=args.seconds, seed=args.seed):
        file = io.BytesIO()
        sheet(look.samples).save(file, "PNG")
        line = {name: getattr(look, name) for name in ("step", "seconds", "losses", "distance")}
        print(json.dumps(line | {"sheet": base64.b64encode(file.getvalue()).decode()}), flush=True)


if __name__ == "__main__":
    main()
