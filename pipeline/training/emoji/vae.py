"""The autoencoder: AutoencoderKL, 8 pixels a latent, 4 channels, trained on scenes from zero.

Loss: L1 + L1 of the picture's differences along x and y (edges) + squared error of the picture at
one value a latent (colours are found sooner than by L1 alone) + a small KL term. The posterior
starts narrow (bias of the log-variance half at -5): at 0 its noise would drown the latents.

Three of the four channels are also pulled to the cell's mean colour, hard at first and then
gently, for good. Without that hint all channels soon said the same thing, and after 15,000 pictures
pink was still white; where it faded to nothing the channels entangled, and a green turtle came back
blue. Posteriors are narrow, so details fit beside it. It also makes the latents easy on the UNet,
and on the linear map that previews use.

When the encoder is good it can be frozen (`decoder_only`) and the decoder sharpened further: the
latents, and so the UNet trained on them, stay what they are.

Kingma and Welling, arXiv 1312.6114; Rombach et al., arXiv 2112.10752.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from .. import hardware
from ..loop import Trainer
from .scenes import SIZE, Composer, Vocabulary, load_sprites, random_scene

KL_WEIGHT = 1e-2  # on the mean over the picture's values
EDGE_WEIGHT = 1.0
COARSE_WEIGHT = 4.0
HINT_WEIGHT = 0.1  # after HINT_STEPS; 1 at first
HINT_STEPS = 1000


def build() -> AutoencoderKL:
    """A fresh autoencoder of 1.6 M parameters. Few, wide GroupNorm groups keep the mean colour."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        vae.quant_conv.bias[4:] = -5.0
        vae.quant_conv.weight[4:] *= 0.1
    return vae


class Pictures:
    """What the autoencoder sees: the model's own scenes, and any emoji at any size and angle."""

    def __init__(self, data: Path, vocabulary: Vocabulary):
        self.composer, self.count = Composer(data, vocabulary), len(vocabulary)
        self.anything = load_sprites(data, None, SIZE)

    def __call__(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """(batch, 3, 128, 128) in -1..1: three quarters scenes, one quarter anything."""
        free = batch // 4
        scenes = [random_scene(self.count, generator) for _ in range(batch - free)]
        drawn = self.composer.draw(scenes)
        return torch.cat([drawn, self._free(free, generator)]) if free else drawn

    def _free(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """One object turned, scaled and shifted at random on a gradient of two random colours."""

        def uniform(*shape, low=0.0, high=1.0):
            return torch.rand(*shape, generator=generator) * (high - low) + low

        index = torch.randint(len(self.anything), (batch,), generator=generator)
        angle, scale = uniform(batch, low=-0.5, high=0.5), uniform(batch, low=0.5, high=1.4)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        shift = uniform(batch, 2, low=-0.4, high=0.4)
        theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).view(batch, 2, 3)
        grid = F.affine_grid(theta, (batch, 4, SIZE, SIZE), align_corners=False)
        sprite = F.grid_sample(self.anything[index], grid, align_corners=False)
        ends, ramp = uniform(2, batch, 3, 1, 1), torch.linspace(0, 1, SIZE)
        ground = torch.lerp(ends[0], ends[1], ramp[:, None].expand(SIZE, SIZE))
        return (ground * (1 - sprite[:, 3:]) + sprite[:, :3]).clamp(0, 1) * 2 - 1


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_terms(
    vae: AutoencoderKL, pictures: torch.Tensor, generator: torch.Generator, colour: float = 0.0
) -> dict[str, torch.Tensor]:
    """Losses of one batch of pictures (B, 3, H, W) in -1..1; `colour` weighs the hint."""
    mean, log_variance = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    latents = mean + torch.exp(0.5 * log_variance) * noise
    drawn = vae.decoder(vae.post_quant_conv(latents))
    reconstruction = F.l1_loss(drawn, pictures)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(drawn), edges(pictures), strict=True))
    means = F.avg_pool2d(pictures, 8)
    coarse = F.mse_loss(F.avg_pool2d(drawn, 8), means)
    hint = F.mse_loss(mean[:, :3], 2 * means)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    pixels = pictures[0].numel()
    return {
        "loss": reconstruction
        + EDGE_WEIGHT * edge
        + COARSE_WEIGHT * coarse
        + KL_WEIGHT * kl / pixels
        + colour * hint,
        "l1": reconstruction,
        "edge": edge,
        "coarse": coarse,
        "hint": hint,
        "kl": kl / pixels,
    }


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of encode (posterior mean) and decode, values in -1..1."""
    drawn = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    return 10 * math.log10(4 / F.mse_loss(drawn, pictures).item())


@torch.no_grad()
def normalise(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Fold each latent channel's mean and deviation into the two 1x1 convolutions around them.

    After this every channel has mean 0 and deviation 1 over `pictures`; what is decoded does not
    change. `scaling_factor`, the reciprocal of the deviation over all channels, is measured anew.
    """
    latents = torch.cat([vae.encode(p).latent_dist.mode() for p in pictures.split(16)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= deviation[None, :, None, None]
    quant.weight[:4] /= deviation[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) / deviation
    quant.bias[4:] -= 2 * deviation.log()
    after = torch.cat([vae.encode(p).latent_dist.mode() for p in pictures.split(16)])
    vae.register_to_config(scaling_factor=round(1 / after.std().item(), 6))


def trainer(
    vae: AutoencoderKL,
    pictures: Pictures,
    folder: Path,
    *,
    batch: int = 8,
    rate: float = 1e-3,
    seed: int = 0,
    decoder_only: bool = False,
    device: str = "cpu",
    attention: str = "auto",
    group_norm: str = "auto",
    **loop,
) -> Trainer:
    hardware.install(vae, device, attention, group_norm)
    vae.to(device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(not decoder_only)
    vae.quant_conv.requires_grad_(not decoder_only)
    learned = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        seen = pictures(batch, generator).to(device, memory_format=torch.channels_last)
        colour = 0.0 if decoder_only else max(HINT_WEIGHT, 1 - number / HINT_STEPS)
        kind = torch.device(device).type
        # On a CPU narrow networks learn markedly worse in bf16.
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            return loss_terms(vae, seen, generator, colour)

    config = {"batch": batch, "seed": seed, "decoder_only": decoder_only}
    return Trainer(folder, vae, optimizer, step, config=config, batch=batch, **loop)


@torch.no_grad()
def before_and_after(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Each picture, then what the autoencoder keeps of it, (2N, 3, H, W)."""
    device = next(vae.parameters()).device
    drawn = vae.decode(vae.encode(pictures.to(device)).latent_dist.mode()).sample.cpu()
    return torch.stack([pictures, drawn.float()], 1).flatten(0, 1)
