"""Training of the denoiser, a UNet2DConditionModel; the autoencoder and text tower are frozen.

The latents of a pool of scenes are encoded once and used for many steps, because encoding in every
step would take longer than the step itself. Every `refresh` steps the pool is filled with new
scenes. One caption in ten is empty, for classifier-free guidance (arXiv 2207.12598).

By default the UNet predicts the velocity (arXiv 2202.00512). At high noise its error is that of the
clean picture, from which a small model learns structure; noise prediction gives this little weight.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ...samplers.prediction import add_noise, velocity
from .. import hardware
from ..loop import Trainer
from .attention_loss import WEIGHT, AttentionLoss
from .captions import caption, caption_with_names
from .clip import tokenize
from .latent_pool import LatentPool
from .scenes import SIZE, random_scene
from .vocabulary import Vocabulary

CHANNELS = (96, 128, 160)
EMPTY_CAPTIONS = 0.1  # share (0 to 1) of captions left empty
PAIRS = 0.5  # share (0 to 1) of scenes with two objects
SHIFT = 3.0  # moves t towards high noise, see `sample_timesteps`
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}


def build(context: int = 192, channels: tuple[int, ...] = CHANNELS) -> UNet2DConditionModel:
    """Return a new, untrained UNet of the emoji model, for latents (4, 16, 16).

    With the default channels it has 9.7 M parameters. context: width E of the text tower's hidden
    states; channels: numbers of channels at 16x16, 8x8 and 4x4. The text enters by cross attention
    at 8x8 and 4x4 and, pooled, with the time embedding; the latter makes names much faster to
    learn. diffusers' argument `attention_head_dim` is in fact the number of heads, here of 32
    channels each.
    """
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=context,
        attention_head_dim=tuple(c // 32 for c in channels),
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=6,
    )


def make_scheduler(prediction: str = "v_prediction") -> DDIMScheduler:
    """Return a DDIM scheduler with the emoji model's noise schedule, for training or sampling.

    prediction: what the UNet predicts, "v_prediction" or "epsilon".
    """
    return DDIMScheduler(**SCHEDULER, prediction_type=prediction)


def sample_timesteps(
    count: int, steps: int, generator: torch.Generator, shift: float = SHIFT
) -> torch.Tensor:
    """Return random timesteps in 0..steps - 1 for a training batch, (count,) int64.

    shift: 1 makes them uniform, more favours high noise: a uniform u is mapped to shift u / (1 +
    (shift - 1) u), Esser et al., arXiv 2403.03206. High noise matters because up to about t = 800
    the noisy latents still show which emoji they hold, so the UNet need not read the caption; only
    above that does it learn what the words mean.
    """
    u = torch.rand(count, generator=generator)
    return (shift * u / (1 + (shift - 1) * u) * steps).long().clamp(max=steps - 1)


def denoising_loss(
    unet: Callable[..., Any],
    latents: torch.Tensor,
    context: torch.Tensor,
    alphas: torch.Tensor,
    generator: torch.Generator,
    *,
    prediction: str = "v_prediction",
    shift: float = SHIFT,
    autocast: bool = False,
) -> torch.Tensor:
    """Return the UNet's training loss, a scalar: its mean squared error at random noise levels.

    unet: a UNet2DConditionModel or a function with its arguments; latents: clean, (B, C, h, w);
    context: text embeddings (B, K, E); alphas: the scheduler's `alphas_cumprod` (T,); prediction:
    what the UNet predicts, "v_prediction" or "epsilon", whose loss is weighted by min-SNR-5 (arXiv
    2303.09556); shift: above 1, timesteps are moved towards high noise; autocast: run the UNet in
    bfloat16.
    """
    device = latents.device
    t = sample_timesteps(len(latents), len(alphas), generator, shift)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    alpha = alphas[t].view(-1, 1, 1, 1).to(device)
    x = add_noise(latents, noise, alpha)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        output = unet(x, t.to(device), encoder_hidden_states=context, return_dict=False)[0]
    output = output.float()
    if prediction == "v_prediction":
        return F.mse_loss(output, velocity(latents, noise, alpha))
    snr = (alpha / (1 - alpha)).flatten()
    error = (output - noise).square().mean((1, 2, 3))
    return (error * snr.clamp(max=5.0) / snr).mean()


def make_trainer(
    unet: UNet2DConditionModel,
    pool: LatentPool,
    vocabulary: Vocabulary,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    folder: Path,
    *,
    batch: int = 64,
    rate: float = 1e-3,
    seed: int = 0,
    refresh: int = 5000,
    prediction: str = "v_prediction",
    shift: float = SHIFT,
    device: str = "cpu",
    attention: str = "auto",
    group_norm: str = "auto",
    compiled: bool = False,
    latents: str = "",
    attention_weight: float = WEIGHT,
    **loop: Any,
) -> Trainer:
    """Return the training loop for the emoji model's UNet; checkpoints go into `folder`.

    pool: latents to train on; vocabulary: names for the captions; text_encoder: CLIP's text tower,
    frozen; batch: pictures per step; rate: learning rate; refresh: number of steps after which the
    pool gets new pictures; prediction: "v_prediction" or "epsilon"; shift: above 1, timesteps are
    moved towards high noise; attention, group_norm: names of kernels, "auto" for the first that can
    train; compiled: use torch.compile; latents: digest of the VAE's encoder, so that a run cannot
    be resumed with other latents; attention_weight: weight of the loss that draws attention to an
    emoji's name onto the emoji, 0 for none; loop: further keyword arguments of Trainer, such as
    `checkpoint_steps`.
    """
    unet.to(device, memory_format=torch.channels_last).train()
    hardware.install_backends(unet, device, attention, group_norm)
    text_encoder.to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    alphas = make_scheduler(prediction).alphas_cumprod
    forward = torch.compile(unet) if compiled else unet
    autocast = hardware.bf16_is_fast(device)
    filled: int | None = None
    attention_loss = AttentionLoss(tokenizer)
    processors = {id(p): p for p in unet.attn_processors.values()}.values()

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        nonlocal filled
        if filled != number // refresh:
            filled = number // refresh
            pool.fill(seed * 1_000_003 + filled)
        index = torch.randint(pool.count, (batch,), generator=generator).tolist()
        choices = torch.rand(batch, 2, generator=generator).tolist()
        captions: list[tuple[str, tuple[str, ...]]] = [
            ("", ())
            if empty < EMPTY_CAPTIONS
            else caption_with_names(
                pool.scenes[i], vocabulary, "en" if language < 0.5 else "zh", generator
            )
            for i, (empty, language) in zip(index, choices, strict=True)
        ]
        texts = [text for text, _ in captions]
        names = [name for _, name in captions]
        kind = torch.device(device).type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=autocast):
            ids = tokenize(tokenizer, texts, full=True).to(device)
            context = text_encoder(input_ids=ids).last_hidden_state.float()
        for processor in processors:
            processor.attention_hook = attention_loss if attention_weight else None
        clean = pool.latents[index].float().to(device, memory_format=torch.channels_last)
        denoising = denoising_loss(
            forward,
            clean,
            context,
            alphas,
            generator,
            prediction=prediction,
            shift=shift,
            autocast=autocast,
        )
        for processor in processors:
            processor.attention_hook = None
        if not attention_weight:
            return {"loss": denoising}
        placement = attention_loss.compute(ids, names, [pool.scenes[i] for i in index])
        return {
            "loss": denoising + attention_weight * placement,
            "denoising": denoising,
            "placement": placement,
        }

    # Keys are part of the checkpoint format: a run resumes only where these values are the same.
    config = {"batch": batch, "seed": seed, "refresh": refresh, "prediction": prediction}
    config |= {"pool": pool.count, "pairs": pool.pairs, "shift": shift, "latents": latents}
    config |= {"placement": attention_weight}
    return Trainer(folder, unet, optimizer, step, config=config, batch=batch, **loop)


def sample_captions(vocabulary: Vocabulary) -> list[str]:
    """Return the 32 captions whose pictures are drawn regularly to watch the UNet's training.

    They are always the same, English and Chinese in turn. vocabulary: the emoji and their names.
    """
    generator = torch.Generator().manual_seed(7)
    scenes = [random_scene(len(vocabulary), generator, 0.25) for _ in range(32)]
    return [caption(s, vocabulary, ("en", "zh")[i % 2]) for i, s in enumerate(scenes)]


@torch.no_grad()
def draw_samples(
    trainer: Trainer,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    captions: list[str],
    *,
    steps: int = 20,
    cfg: float = 3.0,
) -> torch.Tensor:
    """Draw a picture of each caption with the UNet in training, to watch how well it draws.

    Returns (N, 3, 128, 128), about [-1, 1]. trainer: the Trainer of the UNet, whose EMA weights are
    used; the training weights are restored afterwards. steps: number of DDIM steps; cfg:
    classifier-free guidance scale. The initial noise is always the same.
    """
    unet = trainer.module
    device = next(unet.parameters()).device
    live = {k: p.detach().clone() for k, p in unet.named_parameters()}
    trainer.ema.copy_to(unet)
    unet.eval()
    ids = tokenize(tokenizer, captions + [""] * len(captions), full=True).to(device)
    context = text_encoder(input_ids=ids).last_hidden_state
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((len(captions), 4, SIZE // 8, SIZE // 8), generator=generator).to(device)
    x = sample_latents(unet, noise, context, trainer.config["prediction"], steps, cfg)
    for name, parameter in unet.named_parameters():
        parameter.copy_(live[name])
    unet.train()
    x = x / vae.config.scaling_factor
    return torch.cat([vae.decode(part).sample.float().cpu() for part in x.split(8)])


def sample_latents(
    unet: UNet2DConditionModel,
    noise: torch.Tensor,
    context: torch.Tensor,
    prediction: str,
    steps: int,
    cfg: float,
) -> torch.Tensor:
    """Draw with the UNet: return latents (N, 4, h, w), denoised from `noise` in `steps` DDIM steps.

    noise: of the same shape; context: text embeddings (2N, K, E), first those of the N captions,
    then of N empty captions; prediction: what `unet` predicts, "v_prediction" or "epsilon"; cfg:
    classifier-free guidance scale.
    """
    scheduler = make_scheduler(prediction)
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        cond, uncond = unet(torch.cat([x, x]), t, encoder_hidden_states=context).sample.chunk(2)
        x = scheduler.step(uncond + cfg * (cond - uncond), t, x).prev_sample
    return x
