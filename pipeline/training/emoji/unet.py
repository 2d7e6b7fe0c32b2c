"""The denoiser: UNet2DConditionModel on frozen latents and a frozen text tower.

The latents of a pool of scenes are computed once and drawn from for many steps, because encoding
afresh would take longer than learning. Every `refresh` steps the pool is made anew from other
scenes. One caption in ten is empty, for classifier-free guidance (arXiv 2207.12598).

Velocity prediction (arXiv 2202.00512): at high noise its error is the error of the clean picture,
which is what teaches a small model structure; noise prediction gives that little weight.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from ...samplers.prediction import add_noise, velocity
from .. import hardware
from ..loop import Trainer
from .clip import tokens
from .placement import WEIGHT, Placement
from .scenes import SIZE, Composer, Scene, Vocabulary, caption, random_scene, told

CHANNELS = (96, 128, 160)
EMPTY = 0.1  # share of captions left empty
PAIRS = 0.5  # share of scenes with two objects
SHIFT = 3.0  # draws t towards high noise, see `timesteps`
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
    """A fresh UNet of 9.7 M parameters for latents (4, 16, 16) and a context of width `context`.

    Words enter by cross attention at 8x8 and 4x4 and, pooled, with the time embedding, which
    makes names much faster to learn. `attention_head_dim` is the number of heads (32 wide each).
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


def scheduler(prediction: str = "v_prediction") -> DDIMScheduler:
    return DDIMScheduler(**SCHEDULER, prediction_type=prediction)


class Pool:
    """Scenes and their latents. `latents` (N, 4, side / 8, side / 8), scaled to unit deviation,
    float16. `side`: of the pictures in pixels; 64 learns words four times as cheaply as 128."""

    def __init__(
        self, composer: Composer, vae: AutoencoderKL, count: int, pairs: float, side: int = SIZE
    ):
        self.composer, self.vae, self.count, self.pairs = composer, vae, count, pairs
        self.side = side
        self.things = len(next(iter(composer.sprites.values())))
        self.scenes: list[Scene] = []
        self.latents = torch.empty(0)

    @torch.no_grad()
    def fill(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scenes = [random_scene(self.things, generator, self.pairs) for _ in range(self.count)]
        parts = []
        for i in tqdm(range(0, self.count, 32), desc="latents", leave=False):
            pictures = self.composer.draw(self.scenes[i : i + 32])
            if self.side != SIZE:
                pictures = F.interpolate(pictures, (self.side, self.side), mode="area")
            pictures = pictures.to(self.vae.device, memory_format=torch.channels_last)
            parts.append(self.vae.encode(pictures).latent_dist.mode().half().cpu())
        self.latents = torch.cat(parts) * self.vae.config.scaling_factor


def timesteps(
    count: int, steps: int, generator: torch.Generator, shift: float = SHIFT
) -> torch.Tensor:
    """`count` timesteps in 0..steps - 1; `shift` above 1 favours high noise (arXiv 2403.03206).

    1024 noisy values still tell which of a few hundred objects they show until the noise has about
    a hundred times their power, at t = 800. Below that the network need only look; what the words
    mean it learns above.
    """
    u = torch.rand(count, generator=generator)
    return (shift * u / (1 + (shift - 1) * u) * steps).long().clamp(max=steps - 1)


def velocity_loss(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    context: torch.Tensor,
    alphas: torch.Tensor,
    generator: torch.Generator,
    *,
    prediction: str = "v_prediction",
    shift: float = SHIFT,
    autocast: bool = False,
) -> torch.Tensor:
    """Mean squared error of the model's output; latents (B, 4, h, w), alphas (T,) cumulative."""
    device = latents.device
    t = timesteps(len(latents), len(alphas), generator, shift)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    alpha = alphas[t].view(-1, 1, 1, 1).to(device)
    x = add_noise(latents, noise, alpha)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        output = unet(x, t.to(device), encoder_hidden_states=context, return_dict=False)[0]
    output = output.float()
    if prediction == "v_prediction":
        return F.mse_loss(output, velocity(latents, noise, alpha))
    # min-SNR-5 weighting of the noise's error (arXiv 2303.09556)
    snr = (alpha / (1 - alpha)).flatten()
    error = (output - noise).square().mean((1, 2, 3))
    return (error * snr.clamp(max=5.0) / snr).mean()


def trainer(
    unet: UNet2DConditionModel,
    pool: Pool,
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
    placement: float = WEIGHT,
    **loop,
) -> Trainer:
    """placement: how much it counts where words look, see placement.py."""
    unet.to(device, memory_format=torch.channels_last).train()
    hardware.install(unet, device, attention, group_norm)
    text_encoder.to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    alphas = scheduler(prediction).alphas_cumprod
    forward = torch.compile(unet) if compiled else unet
    autocast = hardware.bf16_is_fast(device)
    filled = None
    looks = Placement(tokenizer)
    hears = {id(p): p for p in unet.attn_processors.values()}.values()

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        nonlocal filled
        if filled != number // refresh:
            filled = number // refresh
            pool.fill(seed * 1_000_003 + filled)
        index = torch.randint(pool.count, (batch,), generator=generator).tolist()
        lots = torch.rand(batch, 2, generator=generator).tolist()
        captions = [
            ("", ())
            if empty < EMPTY
            else told(pool.scenes[i], vocabulary, "en" if language < 0.5 else "zh", generator)
            for i, (empty, language) in zip(index, lots, strict=True)
        ]
        texts, names = zip(*captions, strict=True)
        kind = torch.device(device).type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=autocast):
            ids = tokens(tokenizer, list(texts), full=True).to(device)
            context = text_encoder(input_ids=ids).last_hidden_state.float()
        for processor in hears:
            processor.attention_hook = looks if placement else None
        clean = pool.latents[index].float().to(device, memory_format=torch.channels_last)
        loss = velocity_loss(
            forward,
            clean,
            context,
            alphas,
            generator,
            prediction=prediction,
            shift=shift,
            autocast=autocast,
        )
        for processor in hears:
            processor.attention_hook = None
        if not placement:
            return {"loss": loss}
        beside = looks.loss(ids, list(names), [pool.scenes[i] for i in index])
        return {"loss": loss + placement * beside, "denoising": loss, "placement": beside}

    config = {"batch": batch, "seed": seed, "refresh": refresh, "prediction": prediction}
    config |= {"pool": pool.count, "pairs": pool.pairs, "shift": shift, "latents": latents}
    config |= {"placement": placement}
    return Trainer(folder, unet, optimizer, step, config=config, batch=batch, **loop)


def asked(vocabulary: Vocabulary) -> list[tuple[str, Scene]]:
    """32 captions and scenes for the sample sheet, always the same, English and Chinese."""
    generator = torch.Generator().manual_seed(7)
    scenes = [random_scene(len(vocabulary), generator, 0.25) for _ in range(32)]
    return [(caption(s, vocabulary, ("en", "zh")[i % 2]), s) for i, s in enumerate(scenes)]


@torch.no_grad()
def draw(
    trainer: Trainer,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    captions: list[str],
    *,
    steps: int = 20,
    cfg: float = 3.0,
) -> torch.Tensor:
    """What the averaged weights draw now, by DDIM from fixed noise: (N, 3, 128, 128) in -1..1."""
    unet = trainer.module
    device = next(unet.parameters()).device
    live = {k: p.detach().clone() for k, p in unet.named_parameters()}
    trainer.ema.copy_to(unet)
    unet.eval()
    ids = tokens(tokenizer, captions + [""] * len(captions), full=True).to(device)
    context = text_encoder(input_ids=ids).last_hidden_state
    sampler = scheduler(trainer.config["prediction"])
    sampler.set_timesteps(steps)
    x = torch.randn((len(captions), 4, SIZE // 8, SIZE // 8), generator=_fixed()).to(device)
    for t in sampler.timesteps:
        output = unet(torch.cat([x, x]), t, encoder_hidden_states=context).sample
        cond, uncond = output.chunk(2)
        x = sampler.step(uncond + cfg * (cond - uncond), t, x).prev_sample
    for name, parameter in unet.named_parameters():
        parameter.copy_(live[name])
    unet.train()
    x = x / vae.config.scaling_factor
    return torch.cat([vae.decode(part).sample.float().cpu() for part in x.split(8)])


def _fixed() -> torch.Generator:
    return torch.Generator().manual_seed(0)
