"""`python -m pipeline train compare`: compare variants of the UNet's training at equal time.

Every variant trains for the same minutes with the same latents, text embeddings and seed. Its EMA
weights are then measured on the same held-out scenes:

- x0 error: mean squared error of the predicted clean latents at five noise levels. Latents have
  unit variance, so always predicting 0 has error 1. The measure is fair to noise prediction and
  velocity prediction alike.
- top-1, top-5 accuracy: 63 objects are drawn by their captions; a drawing counts as the object that
  has the nearest latents among real pictures of all objects.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ...samplers.prediction import add_noise, to_clean
from . import unet
from .captions import caption
from .clip import tokenize
from .latent_pool import LatentCache
from .scenes import SINGLE_OFFSETS, Composer, Scene, single_scene
from .vocabulary import Vocabulary

LEVELS = (300, 600, 800, 900, 980)  # timesteps at which the x0 error is measured
COLOUR = "blue"  # background of the drawn objects


@dataclass(frozen=True)
class Choice:
    """One way to train the UNet, which is compared with others at equal training time.

    label: its name in the printed table; batch: pictures per step; rate: learning rate; shift:
    above 1, random timesteps are moved towards high noise; prediction: what the UNet predicts,
    "v_prediction" or "epsilon"; channels: number of channels at each level of the UNet; first_half:
    what the first half of the time is spent on, "small" (64-pixel pictures), "singles" (pictures
    with one emoji) or None for nothing special; from_base: start from trained weights instead of
    new ones.
    """

    label: str
    batch: int = 64
    rate: float = 1e-3
    shift: float = 1.0
    prediction: str = "v_prediction"
    channels: tuple[int, ...] = unet.CHANNELS
    first_half: str | None = None
    from_base: bool = False


CHOICES = {
    "velocity": Choice("velocity prediction, batch 64, rate 1e-3, t uniform"),
    "noise": Choice("noise prediction, min-SNR 5", prediction="epsilon"),
    "shift3": Choice("t shifted by 3 towards noise", shift=3.0),
    "shift6": Choice("t shifted by 6 towards noise", shift=6.0),
    "batch16": Choice("batch 16, rate 5e-4", batch=16, rate=5e-4),
    "batch32": Choice("batch 32, rate 7e-4", batch=32, rate=7e-4),
    "small-first": Choice("half the time on pictures of 64x64", first_half="small"),
    "singles-first": Choice("half the time on single objects", first_half="singles"),
    "narrow": Choice("channels 64, 96, 128", channels=(64, 96, 128)),
    "wide": Choice("channels 128, 192, 256", channels=(128, 192, 256)),
    "on": Choice("the base's weights, trained on", from_base=True),
    "on-shift3": Choice("the same, t shifted by 3", shift=3.0, from_base=True),
    "on-batch32": Choice(
        "the same, t shifted by 3, batch 32, rate 5e-4", 32, 5e-4, 3.0, from_base=True
    ),
}

HELD_OUT = 256  # number of scenes that no variant trains on
DRAW_EVERY = 4  # every fourth object of the vocabulary is drawn


@dataclass
class Evaluator:
    """Measures a trained UNet, to compare ways of training: its error and whether it draws right.

    held_out: pictures that no UNet was trained on, as latents; captions: their English captions;
    table: latents of pictures of each emoji alone at each position, (emoji * positions, 4 * 16 *
    16), among which the nearest to a drawn picture tells which emoji it shows; vocabulary: the list
    of emoji; tokenizer, text_encoder: for the UNet's text embeddings.
    """

    held_out: LatentCache
    captions: list[str]
    table: torch.Tensor
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
    ) -> Evaluator:
        """Return an Evaluator, which measures UNets that were trained on latents of `vae`.

        It needs pictures that no UNet was trained on, and pictures of every single emoji: both are
        drawn by `composer` and encoded by `vae` here. vocabulary: the list of emoji. tokenizer,
        text_encoder: for the text embeddings that the UNets take.
        """
        held_out = LatentCache(composer, vae, HELD_OUT, unet.PAIRS)
        held_out.fill(2**33)
        rgb = single_scene(0, COLOUR, torch.Generator().manual_seed(0)).rgb
        scenes = [
            Scene((index,), ((x, y),), None, COLOUR, rgb)
            for index in range(len(vocabulary))
            for x in SINGLE_OFFSETS
            for y in SINGLE_OFFSETS
        ]
        parts = [
            vae.encode(composer.draw(scenes[i : i + 64])).latent_dist.mode()
            for i in range(0, len(scenes), 64)
        ]
        table = torch.cat(parts).flatten(1) * vae.config.scaling_factor
        captions = [caption(s, vocabulary, "en") for s in held_out.scenes]
        return cls(held_out, captions, table, vocabulary, tokenizer, text_encoder)

    @torch.no_grad()
    def context(self, texts: list[str]) -> torch.Tensor:
        """Return the text tower's last hidden states (B, 77, E), float32, which condition the UNet.

        texts: the B captions.
        """
        ids = tokenize(self.tokenizer, texts, full=True)
        return self.text_encoder(input_ids=ids).last_hidden_state.float()

    @torch.no_grad()
    def x0_errors(self, model: UNet2DConditionModel, prediction: str) -> list[float]:
        """Return the UNet's mean squared errors on held-out pictures at the timesteps LEVELS.

        Noise is added to the clean latents, and the clean latents that `model` then predicts are
        compared with the true ones. prediction: what `model` predicts, "v_prediction" or "epsilon".
        """
        alphas = unet.make_scheduler(prediction).alphas_cumprod
        clean, means = self.held_out.latents.float(), []
        context = self.context(self.captions)
        generator = torch.Generator().manual_seed(1)
        for level in LEVELS:
            a = alphas[level]
            noise = torch.randn(clean.shape, generator=generator)
            x, errors = add_noise(clean, noise, a), []
            for part in range(0, len(x), 64):
                here = slice(part, part + 64)
                out = model(x[here], level, encoder_hidden_states=context[here]).sample
                predicted = to_clean(x[here], out, a.sqrt(), (1 - a).sqrt(), prediction)
                errors.append(F.mse_loss(predicted, clean[here]).item())
            means.append(sum(errors) / len(errors))
        return means

    @torch.no_grad()
    def accuracies(self, model: UNet2DConditionModel, prediction: str) -> tuple[float, float]:
        """Return (top-1, top-5), the accuracy (0 to 1) with which `model` draws the right emoji.

        Draws every DRAW_EVERY-th emoji of the vocabulary from its caption, with 12 DDIM steps and
        guidance 3. All emoji are ranked by the distance of their latents to those drawn; top-5
        means that the emoji asked for is among the first five. prediction: what `model` predicts,
        "v_prediction" or "epsilon".
        """
        wanted = list(range(0, len(self.vocabulary), DRAW_EVERY))
        corners = len(SINGLE_OFFSETS) ** 2
        generator = torch.Generator().manual_seed(2)
        scenes = [single_scene(w, COLOUR, generator) for w in wanted]
        texts = [caption(s, self.vocabulary, "en") for s in scenes]
        context = self.context(texts + [""] * len(texts))
        noise = torch.randn((len(wanted), 4, 16, 16), generator=generator)
        x = unet.sample_latents(model, noise, context, prediction, steps=12, cfg=3)
        distances = torch.cdist(x.flatten(1), self.table).view(len(wanted), -1, corners).amin(2)
        order = distances.argsort(1)
        rank = torch.tensor([(r == w).nonzero().item() for r, w in zip(order, wanted, strict=True)])
        return (rank < 1).float().mean().item(), (rank < 5).float().mean().item()


def train_variant(
    choice: Choice,
    pool: LatentCache,
    small: LatentCache | None,
    evaluator: Evaluator,
    folder: Path,
    minutes: float,
    base: UNet2DConditionModel | None,
) -> dict[str, Any]:
    """Train a UNet as `choice` says for `minutes`, then measure its EMA weights.

    pool: the training pictures at 128 pixels, as latents; small: as many at 64 pixels, needed if
    `choice.first_half` is "small"; evaluator: measures the UNet; folder: for checkpoints; base: the
    UNet to start from, needed if `choice.from_base`. Returns a dict with "pictures" (number trained
    on), "x0" (mean squared errors at the timesteps compare.LEVELS), "top1" and "top5" (share 0 to 1
    of emoji drawn right), and "parameters" (number of weights).
    """
    torch.manual_seed(0)
    model = unet.build(evaluator.text_encoder.config.hidden_size, choice.channels)
    if choice.from_base:
        assert base is not None
        model.load_state_dict(base.state_dict())
    pools = [pool]
    if choice.first_half == "small":
        assert small is not None
        pools = [small, pool]
    elif choice.first_half == "singles":
        pools = [pool.subset(lambda s: len(s.objects) == 1), pool]
    pictures = 0
    for phase, scenes in enumerate(pools):
        trainer = unet.make_trainer(
            model,
            scenes,
            evaluator.vocabulary,
            evaluator.tokenizer,
            evaluator.text_encoder,
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
    top1, top5 = evaluator.accuracies(model, choice.prediction)
    return {
        "pictures": pictures,
        "x0": evaluator.x0_errors(model, choice.prediction),
        "top1": top1,
        "top5": top5,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def compare(
    names: list[str],
    pool: LatentCache,
    small: LatentCache | None,
    evaluator: Evaluator,
    folder: Path,
    minutes: float,
    base: UNet2DConditionModel | None,
) -> str:
    """Train a UNet in each of the ways `names` and return a Markdown table of their results.

    names: keys of CHOICES, such as "noise"; pool: the training pictures at 128 pixels, as latents;
    small: as many at 64 pixels, None if no way needs them; evaluator: measures the UNets; folder:
    for checkpoints; minutes: training time of each; base: trained UNet for the ways that start from
    one, else None. Also prints each row of the table as soon as it is known.
    """
    levels = " | ".join(f"t = {t}" for t in LEVELS)
    rows = [f"| choice | pictures | {levels} | top-1 | top-5 |"]
    rows.append("|" + "---|" * (len(LEVELS) + 4))
    for name in names:
        begun = time.strftime("%Y%m%d-%H%M%S")
        row = train_variant(CHOICES[name], pool, small, evaluator, folder / begun, minutes, base)
        rows.append(
            f"| {CHOICES[name].label} | {row['pictures']} "
            f"| {' | '.join(f'{e:.3f}' for e in row['x0'])} "
            f"| {row['top1']:.0%} | {row['top5']:.0%} |"
        )
        print(rows[-1], flush=True)
    return "\n".join(rows)
