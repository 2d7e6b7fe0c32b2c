"""Training of the autoencoder (VAE), diffusers' AutoencoderKL: 4 channels per 8x8 pixels.

The loss is the sum of: L1 of the pixels; L1 of the differences of neighbouring pixels (edges);
squared error of the picture reduced to one value per 8x8 pixels, which teaches colours sooner than
L1 alone; and a small KL term. The posterior starts with a small variance (bias of the log-variance
at -5), because with a variance of 1 its noise would be larger than the latents.

A further loss, the hint, pulls three of the four latent channels to the mean colour of their 8x8
pixels, with weight 1 at first and HINT_WEIGHT after HINT_STEPS. Without it all channels soon became
copies of each other, and after 15,000 pictures pink was still drawn white; when its weight fell to
0, a green turtle was reconstructed blue. It also makes the latents easier for the UNet and for the
linear map from latents to preview pictures.

With `decoder_only` the encoder is frozen and the decoder trained further: the latents, and a UNet
trained on them, remain valid.

Kingma and Welling, arXiv 1312.6114; Rombach et al., arXiv 2112.10752.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from .. import hardware
from ..loop import Trainer
from .scenes import SIZE, Composer, random_scene
from .sprites import load_sprites
from .vocabulary import Vocabulary

KL_WEIGHT = 1e-2  # of the KL divergence divided by the number of values of a picture
EDGE_WEIGHT = 1.0
COARSE_WEIGHT = 4.0
HINT_WEIGHT = 0.1  # after HINT_STEPS; 1 at first
HINT_STEPS = 1000


def build() -> AutoencoderKL:
    """Return a new, untrained autoencoder of the emoji model, for pictures of 128x128 pixels.

    It has 1.6 M parameters, and only 2 groups in each GroupNorm, because many narrow groups would
    normalize the mean colour away.
    """
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


class PictureSource:
    """Source of the autoencoder's training pictures: call it to get a random batch.

    Three quarters show one or two emoji of the vocabulary upright on a plain background, one
    quarter any emoji at a random size and angle on a gradient. data: folder of the npm packages
    with the emoji's pictures; vocabulary: the list of emoji that the model shall know.
    """

    def __init__(self, data: Path, vocabulary: Vocabulary):
        self.composer, self.count = Composer(data, vocabulary), len(vocabulary)
        self.all_sprites = load_sprites(data, None, SIZE)

    def __call__(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Return `batch` random training pictures of emoji, (B, 3, 128, 128) in [-1, 1]."""
        free = batch // 4
        scenes = [random_scene(self.count, generator) for _ in range(batch - free)]
        composed = self.composer.draw(scenes)
        return torch.cat([composed, self._transform(free, generator)]) if free else composed

    def _transform(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Return `batch` pictures of one emoji each, rotated, scaled and shifted at random.

        The background is a gradient of two random colours; (B, 3, 128, 128) in [-1, 1].
        """

        def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
            return torch.rand(*shape, generator=generator) * (high - low) + low

        index = torch.randint(len(self.all_sprites), (batch,), generator=generator)
        angle, scale = uniform(batch, low=-0.5, high=0.5), uniform(batch, low=0.5, high=1.4)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        shift = uniform(batch, 2, low=-0.4, high=0.4)
        theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).view(batch, 2, 3)
        grid = F.affine_grid(theta, [batch, 4, SIZE, SIZE], align_corners=False)
        sprite = F.grid_sample(self.all_sprites[index], grid, align_corners=False)
        ends, ramp = uniform(2, batch, 3, 1, 1), torch.linspace(0, 1, SIZE)
        ground = torch.lerp(ends[0], ends[1], ramp[:, None].expand(SIZE, SIZE))
        return (ground * (1 - sprite[:, 3:]) + sprite[:, :3]).clamp(0, 1) * 2 - 1


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the differences of neighbouring pixels of x (B, C, H, W), for a loss on edges.

    They are two tensors: (B, C, H, W - 1) along x and (B, C, H - 1, W) along y.
    """
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_terms(
    vae: AutoencoderKL, pictures: torch.Tensor, generator: torch.Generator, hint_weight: float = 0.0
) -> dict[str, torch.Tensor]:
    """Return the autoencoder's training losses for pictures (B, 3, H, W) in [-1, 1], as scalars.

    A dict with "loss", the weighted sum to minimize, and its unweighted terms: "l1" of the pixels,
    "edge" (L1 of differences of neighbouring pixels), "coarse" (squared error of the means of 8x8
    pixels), "hint" (squared distance of three latent channels to twice these means) and "kl".
    generator: for the posterior's noise; hint_weight: weight of "hint".
    """
    mean, log_variance = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    latents = mean + torch.exp(0.5 * log_variance) * noise
    decoded = vae.decoder(vae.post_quant_conv(latents))
    reconstruction = F.l1_loss(decoded, pictures)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(decoded), edges(pictures), strict=True))
    means = F.avg_pool2d(pictures, 8)
    coarse = F.mse_loss(F.avg_pool2d(decoded, 8), means)
    hint = F.mse_loss(mean[:, :3], 2 * means)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    pixels = pictures[0].numel()
    return {
        "loss": reconstruction
        + EDGE_WEIGHT * edge
        + COARSE_WEIGHT * coarse
        + KL_WEIGHT * kl / pixels
        + hint_weight * hint,
        "l1": reconstruction,
        "edge": edge,
        "coarse": coarse,
        "hint": hint,
        "kl": kl / pixels,
    }


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Return how well the VAE reconstructs `pictures` (B, 3, H, W) in [-1, 1]: the PSNR in dB.

    They are decoded from the mean of the posterior, without noise.
    """
    decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    return 10 * math.log10(4 / F.mse_loss(decoded, pictures).item())


@torch.no_grad()
def normalise(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Change the weights of `vae` so that its latents have mean 0 and deviation 1 per channel.

    A UNet then trains on well-scaled latents. Mean and deviation are measured over `pictures` (N,
    3, H, W) in [-1, 1] and folded into the 1x1 convolutions before and after the latents, so
    reconstructions stay the same. Sets `scaling_factor` to 1 / the remaining deviation, about 1.
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


def make_trainer(
    vae: AutoencoderKL,
    pictures: PictureSource,
    folder: Path,
    *,
    batch: int = 8,
    rate: float = 1e-3,
    seed: int = 0,
    decoder_only: bool = False,
    device: str = "cpu",
    attention: str = "auto",
    group_norm: str = "auto",
    **loop: Any,
) -> Trainer:
    """Return the training loop for the autoencoder `vae`; checkpoints go into `folder`.

    pictures: source of the training batches; batch: pictures per step; rate: learning rate;
    decoder_only: freeze the encoder; attention, group_norm: names of kernels, "auto" for the first
    that can train; loop: further keyword arguments of Trainer, such as `checkpoint_steps`.
    """
    hardware.install_backends(vae, device, attention, group_norm)
    vae.to(device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(not decoder_only)
    vae.quant_conv.requires_grad_(not decoder_only)
    learned = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        truth = pictures(batch, generator).to(device, memory_format=torch.channels_last)
        hint_weight = 0.0 if decoder_only else max(HINT_WEIGHT, 1 - number / HINT_STEPS)
        kind = torch.device(device).type
        # Narrow networks learn markedly worse in bf16 on a CPU.
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            return loss_terms(vae, truth, generator, hint_weight)

    config = {"batch": batch, "seed": seed, "decoder_only": decoder_only}
    return Trainer(folder, vae, optimizer, step, config=config, batch=batch, **loop)


@torch.no_grad()
def pair_with_reconstructions(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Return each of `pictures` followed by its reconstruction, to compare them by eye on a sheet.

    pictures: (N, 3, H, W) in [-1, 1]. The result is (2N, 3, H, W); reconstructions may slightly
    exceed [-1, 1].
    """
    device = next(vae.parameters()).device
    decoded = vae.decode(vae.encode(pictures.to(device)).latent_dist.mode()).sample.cpu()
    return torch.stack([pictures, decoded.float()], 1).flatten(0, 1)
