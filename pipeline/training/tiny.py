"""A tiny diffusion model that trains in a minute: 16x16 pixels, four shapes, 100,000 parameters.

`python -m pipeline.training.tiny --seconds 60` trains it and prints one line of JSON per snapshot.
Picture x0 and noise eps are mixed at an angle, x = cos(angle) x0 + sin(angle) eps, as in Salimans
and Ho, arXiv 2202.00512: angle 0 is the picture, 90 degrees the noise. The network predicts x0 from
x, the angle and the index of the shape. After a minute it draws clean shapes; a network that
predicts the velocity still leaves speckles then.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

SIDE = 16
SHAPES = ("disc", "square", "triangle", "ring")
# Channels at 8x8, channels at 4x4, and width of the embedding of angle and shape.
WIDTH, DEEP, EMBEDDING = 28, 40, 64
BATCH, RATE = 32, 3e-3
RATE_HALF_LIFE = 2000  # steps after which the rate has halved
EMA_DECAY = 0.99  # of the weights that samples are drawn with
SAMPLES_PER_SHAPE = 6
SAMPLE_STEPS = 16
SNAPSHOT_SECONDS = 2.0


def draw_shapes(shapes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw training pictures (B, 3, 16, 16) in [-1, 1] for the tiny model: one shape in each.

    shapes: indices into SHAPES ("disc", "square", "triangle", "ring"), (B,). Each shape has a
    random colour, size and position on a plain background of clearly different brightness.
    """
    count = len(shapes)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator).view(count, -1, 1, 1)

    grid = torch.arange(SIDE) + 0.5
    size = 4.2 + 1.6 * uniform()  # half of the side, in pixels
    x = grid.view(1, 1, 1, SIDE) - SIDE / 2 - (uniform() - 0.5) * 3
    y = grid.view(1, 1, SIDE, 1) - SIDE / 2 - (uniform() - 0.5) * 3
    radius = (x**2 + y**2).sqrt()
    # Signed distance of a pixel to each shape's edge, in pixels; on the edge it is half covered.
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
    background, colour = torch.where(swap, bright, dark), torch.where(swap, dark, bright)
    return background + cover * (colour - background)


class ResidualBlock(nn.Module):
    """A block of the tiny UNet: two 3x3 convolutions with a skip connection.

    Between them the projected embedding is added. It encodes what the UNet is conditioned on: the
    noise level, and what to draw (a disc, square, triangle or ring).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.norm = nn.GroupNorm(4, out_channels)
        self.project = nn.Linear(EMBEDDING, out_channels)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return the block's output, features (B, out_channels, H, W).

        x: (B, in_channels, H, W); embedding: encodes the noise level and what to draw, (B, 64).
        """
        h = self.norm(self.first(x)) + self.project(embedding)[:, :, None, None]
        return self.shortcut(x) + self.second(F.silu(h))


class TinyUNet(nn.Module):
    """A UNet of 100,000 parameters that predicts the clean 16x16 picture x0 of a shape.

    It has two resolutions, 8x8 and 4x4. Each block of 2x2 RGB pixels enters and leaves as one
    position of 12 channels (pixel unshuffle), which needs a quarter of the computation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape = nn.Embedding(len(SHAPES), EMBEDDING)
        self.time = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING)
        )
        self.conv_in = nn.Conv2d(12, WIDTH, 3, padding=1)
        self.down = ResidualBlock(WIDTH, WIDTH)
        self.downsample = nn.Conv2d(WIDTH, DEEP, 3, stride=2, padding=1)
        self.middle = ResidualBlock(DEEP, DEEP)
        self.up = ResidualBlock(DEEP + WIDTH, WIDTH)
        self.conv_out = nn.Conv2d(WIDTH, 12, 3, padding=1)

    def forward(self, x: torch.Tensor, angle: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        """Return the clean pictures (B, 3, 16, 16) that the network predicts from noisy ones.

        x: noisy pictures (B, 3, 16, 16); angle: noise level in radians (B,), from 0 (clean) to pi/2
        (noise); shape: which shape each shows, indices into SHAPES (B,).
        """
        embedding = F.silu(self.time(embed_angle(angle)) + self.shape(shape))
        high = self.down(self.conv_in(F.pixel_unshuffle(x, 2)), embedding)
        low = self.middle(self.downsample(high), embedding)
        back = F.interpolate(low, scale_factor=2.0, mode="nearest")
        out = self.conv_out(self.up(torch.cat([back, high], 1), embedding))
        return F.pixel_shuffle(out, 2)


def embed_angle(angle: torch.Tensor) -> torch.Tensor:
    """Return the sinusoidal embedding (B, 64) of the noise level `angle` (B,), 0 to pi/2."""
    phases = angle[:, None] * torch.exp(torch.linspace(0, math.log(60), EMBEDDING // 2))
    return torch.cat([phases.sin(), phases.cos()], 1)


def add_noise(x0: torch.Tensor, eps: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Return the noisy pictures cos(angle) x0 + sin(angle) eps, (B, 3, 16, 16).

    x0: clean pictures, eps: Gaussian noise, both (B, 3, 16, 16); angle: noise level in radians,
    (B,).
    """
    return angle.cos().view(-1, 1, 1, 1) * x0 + angle.sin().view(-1, 1, 1, 1) * eps


@torch.no_grad()
def sample(
    net: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    shapes: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw pictures (B, 3, 16, 16) in [-1, 1] from noise with the tiny model, in 16 DDIM steps.

    net(x, angle, shape): the network, which predicts clean pictures from noisy ones x at the noise
    level `angle` (0 to pi/2); shapes: which shape to draw, indices into SHAPES (B,); generator: for
    the initial noise.
    """
    x = torch.randn(len(shapes), 3, SIDE, SIDE, generator=generator)
    angles = torch.linspace(math.pi / 2, 0, SAMPLE_STEPS + 1)
    for now, following in pairwise(angles):
        x0 = net(x, now.expand(len(x)), shapes)
        eps = (x - now.cos() * x0) / now.sin()
        x = following.cos() * x0 + following.sin() * eps
    return x.clamp(-1, 1)


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return how different two sets of pictures are, a (N, ...) and b (M, ...): about 0 if alike.

    It is the energy distance, 2 E|a - b| - E|a - a'| - E|b - b'| with a, a' different pictures of
    the first set and b, b' of the second, divided by the square root of the number of values per
    picture. Szekely and Rizzo, J. Stat. Plan. Inference 143 (2013).
    """
    a, b = a.flatten(1), b.flatten(1)

    def within(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    apart = 2 * torch.cdist(a, b).mean() - within(a) - within(b)
    return float(apart) / a.shape[1] ** 0.5


@dataclass(frozen=True)
class Snapshot:
    """How far the tiny model's training is after `step` steps and `seconds` seconds.

    losses: all losses so far, averaged over chunks of 20 steps; samples: pictures drawn with the
    averaged weights, (24, 3, 16, 16) in [-1, 1], six of each shape; distance: how different they
    are from real pictures (energy distance, about 0 if alike).
    """

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
) -> Iterator[Snapshot]:
    """Train the tiny diffusion model of 16x16 shapes from zero, and yield how far it is.

    Ends after `steps` steps or `seconds` seconds, whichever comes first; without both only when the
    caller closes it. Yields a Snapshot before the first step, one every `every` steps (None: every
    two seconds), and one at the end. The same seed and number of steps give the same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyUNet()
        averaged = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)
        )
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    held_out = draw_shapes(
        torch.arange(256) % len(SHAPES), torch.Generator().manual_seed(2**31 + seed)
    )
    losses: list[float] = []
    begin, last, step = time.monotonic(), 0.0, 0

    def take_snapshot() -> Snapshot:
        shapes = torch.arange(len(SHAPES)).repeat_interleave(SAMPLES_PER_SHAPE)
        samples = sample(averaged, shapes, torch.Generator().manual_seed(seed))
        means = tuple(sum(part) / len(part) for part in _chunk(losses, 20))
        elapsed = time.monotonic() - begin
        return Snapshot(step, elapsed, means, samples, energy_distance(samples, held_out))

    yield take_snapshot()
    while (steps is None or step < steps) and (
        seconds is None or time.monotonic() - begin < seconds
    ):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 ** (step / RATE_HALF_LIFE)
        shapes = torch.randint(len(SHAPES), (BATCH,), generator=generator)
        x0 = draw_shapes(shapes, generator)
        eps = torch.randn(x0.shape, generator=generator)
        angle = torch.rand(BATCH, generator=generator) * math.pi / 2
        loss = F.mse_loss(net(add_noise(x0, eps, angle), angle, shapes), x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(net)
        losses.append(float(loss.detach()))
        step += 1
        now = time.monotonic() - begin
        if step % every == 0 if every else now - last >= SNAPSHOT_SECONDS:
            last = now
            yield take_snapshot()
    if losses and not (every and step % every == 0):
        yield take_snapshot()


def _chunk(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def make_sheet(samples: torch.Tensor, columns: int = SAMPLES_PER_SHAPE) -> Image.Image:
    """Return one picture that shows the tiny model's samples in a grid.

    samples: (N, 3, 16, 16) in [-1, 1]; columns: pictures in a row. With the default, the samples of
    a Snapshot give one row each for disc, square, triangle and ring.
    """
    rows = len(samples) // columns
    grid = samples.view(rows, columns, 3, SIDE, SIDE).permute(0, 3, 1, 4, 2)
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.reshape(rows * SIDE, columns * SIDE, 3).numpy(), "RGB")


def main() -> None:
    """Train the tiny diffusion model (`python -m pipeline.training.tiny`) and print its progress.

    Each line is a Snapshot as JSON: "step", "seconds", "losses", "distance" and "sheet", a base64
    PNG of its sample pictures.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.tiny", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for snapshot in train(seconds=args.seconds, seed=args.seed):
        file = io.BytesIO()
        make_sheet(snapshot.samples).save(file, "PNG")
        line = {name: getattr(snapshot, name) for name in ("step", "seconds", "losses", "distance")}
        print(json.dumps(line | {"sheet": base64.b64encode(file.getvalue()).decode()}), flush=True)


if __name__ == "__main__":
    main()
