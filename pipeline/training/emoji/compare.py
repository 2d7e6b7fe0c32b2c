"""Which choice learns fastest: variants of the UNet's training at equal small budgets of time.

Every variant sees the same latents, the same text tower and the same seed for the same minutes, and
is then measured on the same held-out scenes with its averaged weights:

- x0 error: mean squared error of the clean latents it believes in, at five noise levels
  (unit variance, so 1 is knowing nothing). It compares noise with velocity prediction fairly.
- top-1, top-5: 63 drawn objects, named by the nearest real latents among all objects and places.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ...samplers.prediction import add_noise, to_clean
from . import unet
from .clip import tokens
from .scenes import SINGLE_PLACES, Composer, Scene, Vocabulary, caption, single_scene

LEVELS = (300, 600, 800, 900, 980)
COLOUR = "blue"


@dataclass(frozen=True)
class Choice:
    """One variant: what differs from the first of CHOICES."""

    says: str
    batch: int = 64
    rate: float = 1e-3
    shift: float = 1.0
    prediction: str = "v_prediction"
    channels: tuple[int, ...] = unet.CHANNELS
    first: str | None = None  # what the first half of the time sees: "small", "singles"
    warm: bool = False  # start from the base's weights


CHOICES = {
    "velocity": Choice("velocity prediction, batch 64, rate 1e-3, t uniform"),
    "noise": Choice("noise prediction, min-SNR 5", prediction="epsilon"),
    "shift3": Choice("t shifted by 3 towards noise", shift=3.0),
    "shift6": Choice("t shifted by 6 towards noise", shift=6.0),
    "batch16": Choice("batch 16, rate 5e-4", batch=16, rate=5e-4),
    "batch32": Choice("batch 32, rate 7e-4", batch=32, rate=7e-4),
    "small-first": Choice("half the time on pictures of 64x64", first="small"),
    "singles-first": Choice("half the time on single objects", first="singles"),
    "narrow": Choice("channels 64, 96, 128", channels=(64, 96, 128)),
    "wide": Choice("channels 128, 192, 256", channels=(128, 192, 256)),
    "on": Choice("the base's weights, trained on", warm=True),
    "on-shift3": Choice("the same, t shifted by 3", shift=3.0, warm=True),
    "on-batch32": Choice("the same, t shifted by 3, batch 32, rate 5e-4", 32, 5e-4, 3.0, warm=True),
}

HELD = 256  # scenes that no training sees
EVERY = 4  # one object of so many is drawn


class Kept(unet.Pool):
    """A pool that is filled once and shared; `part` keeps the scenes that are `where`."""

    def part(self, where) -> Kept:
        out = Kept(self.composer, self.vae, 0, self.pairs)
        index = [i for i, s in enumerate(self.scenes) if where(s)]
        out.scenes, out.latents = [self.scenes[i] for i in index], self.latents[index]
        out.count = len(index)
        return out

    def fill(self, seed: int) -> None:
        if not self.scenes:
            super().fill(seed)


@dataclass
class Measure:
    """The held-out scenes and the table of real latents that drawn ones are compared with."""

    held: Kept
    captions: list[str]
    table: torch.Tensor  # (objects * places, 4 * 16 * 16)
    vocabulary: Vocabulary
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        composer: Composer,
        vae: AutoencoderKL,
        vocabulary: Vocabulary,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
    ) -> Measure:
        held = Kept(composer, vae, HELD, unet.PAIRS)
        held.fill(2**33)
        shade = single_scene(0, COLOUR, torch.Generator().manual_seed(0)).shade
        scenes = [
            Scene((thing,), ((x, y),), None, COLOUR, shade)
            for thing in range(len(vocabulary))
            for x in SINGLE_PLACES
            for y in SINGLE_PLACES
        ]
        parts = [
            vae.encode(composer.draw(scenes[i : i + 64])).latent_dist.mode()
            for i in range(0, len(scenes), 64)
        ]
        table = torch.cat(parts).flatten(1) * vae.config.scaling_factor
        captions = [caption(s, vocabulary, "en") for s in held.scenes]
        return cls(held, captions, table, vocabulary, tokenizer, text_encoder)

    @torch.no_grad()
    def context(self, texts: list[str]) -> torch.Tensor:
        ids = tokens(self.tokenizer, texts, full=True)
        return self.text_encoder(input_ids=ids).last_hidden_state.float()

    @torch.no_grad()
    def x0_errors(self, model: UNet2DConditionModel, prediction: str) -> list[float]:
        alphas = unet.scheduler(prediction).alphas_cumprod
        clean, means = self.held.latents.float(), []
        context = self.context(self.captions)
        generator = torch.Generator().manual_seed(1)
        for level in LEVELS:
            a = alphas[level]
            noise = torch.randn(clean.shape, generator=generator)
            x, errors = add_noise(clean, noise, a), []
            for part in range(0, len(x), 64):
                here = slice(part, part + 64)
                out = model(x[here], level, encoder_hidden_states=context[here]).sample
                believed = to_clean(x[here], out, a.sqrt(), (1 - a).sqrt(), prediction)
                errors.append(F.mse_loss(believed, clean[here]).item())
            means.append(sum(errors) / len(errors))
        return means

    @torch.no_grad()
    def named(self, model: UNet2DConditionModel, prediction: str) -> tuple[float, float]:
        """Shares of drawn objects that are the nearest, and among the five nearest."""
        wanted = list(range(0, len(self.vocabulary), EVERY))
        places = len(SINGLE_PLACES) ** 2
        generator = torch.Generator().manual_seed(2)
        scenes = [single_scene(w, COLOUR, generator) for w in wanted]
        texts = [caption(s, self.vocabulary, "en") for s in scenes]
        context = self.context(texts + [""] * len(texts))
        sampler = unet.scheduler(prediction)
        sampler.set_timesteps(12)
        x = torch.randn((len(wanted), 4, 16, 16), generator=generator)
        for t in sampler.timesteps:
            cond, uncond = model(torch.cat([x, x]), t, encoder_hidden_states=context).sample.chunk(
                2
            )
            x = sampler.step(uncond + 3 * (cond - uncond), t, x).prev_sample
        far = torch.cdist(x.flatten(1), self.table).view(len(wanted), -1, places).amin(2)
        order = far.argsort(1)
        rank = torch.tensor([(r == w).nonzero().item() for r, w in zip(order, wanted, strict=True)])
        return (rank < 1).float().mean().item(), (rank < 5).float().mean().item()


def learn(
    choice: Choice,
    pool: Kept,
    small: Kept | None,
    measure: Measure,
    folder: Path,
    minutes: float,
    base: UNet2DConditionModel | None,
) -> dict[str, float]:
    """Train one variant for `minutes` and measure it."""
    torch.manual_seed(0)
    model = unet.build(measure.text_encoder.config.hidden_size, choice.channels)
    if choice.warm:
        model.load_state_dict(base.state_dict())
    pools = [pool]
    if choice.first == "small":
        pools = [small, pool]
    elif choice.first == "singles":
        pools = [pool.part(lambda s: len(s.things) == 1), pool]
    pictures = 0
    for phase, seen in enumerate(pools):
        trainer = unet.trainer(
            model,
            seen,
            measure.vocabulary,
            measure.tokenizer,
            measure.text_encoder,
            folder / str(phase),
            batch=choice.batch,
            rate=choice.rate,
            prediction=choice.prediction,
            shift=choice.shift,
            checkpoint_seconds=1e9,
        )
        trainer.train(minutes=minutes / len(pools))
        pictures += trainer.step * choice.batch
    trainer.ema.copy_to(model)
    model.eval()
    top1, top5 = measure.named(model, choice.prediction)
    return {
        "pictures": pictures,
        "x0": measure.x0_errors(model, choice.prediction),
        "top1": top1,
        "top5": top5,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def compare(
    names: list[str],
    pool: Kept,
    small: Kept | None,
    measure: Measure,
    folder: Path,
    minutes: float,
    base: UNet2DConditionModel | None,
) -> str:
    """The table of `names`, in markdown; each row is also printed as it is measured.

    `small`: the scenes of `pool` at 64 pixels, for choices that see those first.
    """
    levels = " | ".join(f"t = {t}" for t in LEVELS)
    rows = [f"| choice | pictures | {levels} | top-1 | top-5 |"]
    rows.append("|" + "---|" * (len(LEVELS) + 4))
    for name in names:
        start = time.strftime("%Y%m%d-%H%M%S")
        row = learn(CHOICES[name], pool, small, measure, folder / start, minutes, base)
        rows.append(
            f"| {CHOICES[name].says} | {row['pictures']} "
            f"| {' | '.join(f'{e:.3f}' for e in row['x0'])} "
            f"| {row['top1']:.0%} | {row['top5']:.0%} |"
        )
        print(rows[-1], flush=True)
    return "\n".join(rows)
