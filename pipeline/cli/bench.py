"""Whole pictures: ours against diffusers' StableDiffusionPipeline on the same folder, in one run.

Both load the same weights in the same type on the same device and draw the same picture from the
same noise, in turns, so that both see the same weather. Printed are medians, the ratio and the
largest difference of the final latents.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a red apple on a blue background"
SAMPLER, SCHEDULE = "dpmpp_2m", "karras"


def run(name: str, *, steps: int, repeats: int, device: str, dtype: str) -> dict[str, float]:
    """Print the comparison and return its figures in seconds. InputError for a bad model name."""
    from ..errors import InputError

    if not 1 <= steps <= 200 or repeats < 1:
        raise InputError("--steps must be from 1 to 200 and --repeats at least 1.")
    import torch

    from ..introspection.recording import Watch
    from ..latents import noise
    from ..loading.load import load
    from ..options import GenerateOptions

    models = load(name, device=device, dtype=dtype)
    options = models.resolve(
        GenerateOptions(prompt=PROMPT, sampler=SAMPLER, schedule=SCHEDULE, steps=steps, seed=7)
    )
    peer = _peer(models, options)

    def ours() -> torch.Tensor:
        return models.generate(options).latents[0]

    def theirs() -> torch.Tensor:
        factor = 2 ** (len(models.vae.config.block_out_channels) - 1)
        channels = models.vae.config.latent_channels
        shape = (channels, options.height // factor, options.width // factor)
        latents = noise.first_noise(noise.generator_for(options.seed), *shape)
        return peer(latents.to(models.device, models.dtype))

    def recorded() -> torch.Tensor:
        *_, result = Watch(models, models.stream(options, words=True))
        return result.latents[0]

    seen = {"ours": ours(), "recorded": recorded(), "diffusers": theirs()}  # warm, and to compare
    # In torch's default float comparison only the sampler's own rounding remains.
    difference = (seen["ours"].float().cpu() - seen["diffusers"].float().cpu()).abs().max().item()
    draws = {"ours": ours, "recorded": recorded, "diffusers": theirs}
    times: dict[str, list[float]] = {who: [] for who in draws}
    for _ in range(repeats):
        for who, draw in draws.items():
            began = time.perf_counter()
            draw()
            if models.device.type == "cuda":
                torch.cuda.synchronize()
            times[who].append(time.perf_counter() - began)
    medians = {who: statistics.median(t) for who, t in times.items()}
    ratio = medians["diffusers"] / medians["ours"]
    print(
        f"{models.name}, {options.width}x{options.height}, {steps} steps of DPM++ 2M Karras, "
        f"guidance {options.cfg:g}, {models.device}, {str(models.dtype).removeprefix('torch.')}, "
        f"{torch.get_num_threads()} threads, {repeats} runs in turns"
    )
    for who, t in times.items():
        print(f"  {who:10} median {medians[who]:.3f} s  (from {min(t):.3f} to {max(t):.3f})")
    print(
        f"  diffusers takes {ratio:.2f} times as long; latents differ by {difference:.1e} at most"
    )
    recording = medians["recorded"] / medians["ours"]
    print(f"  ours with every step and its word maps recorded takes {recording:.2f} times as long")
    cold = _cold_start(name, steps, device, dtype)
    print(f"  cold start to file: {cold:.1f} s (python -m pipeline generate)")
    return {
        **medians,
        "ratio": ratio,
        "recording": recording,
        "difference": difference,
        "cold": cold,
    }


def _peer(models, options):
    """diffusers' own pipeline on the same folder, drawing the same options to a picture."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    from ..prompt.text import space_han

    pipe = StableDiffusionPipeline.from_pretrained(
        models.path, dtype=models.dtype, local_files_only=True, use_safetensors=True
    ).to(models.device)
    pipe.vae.to(models.vae_dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True
    )

    def draw(latents):
        latents = pipe(
            space_han(options.prompt),
            negative_prompt=options.negative,
            num_inference_steps=options.steps,
            guidance_scale=options.cfg,
            width=options.width,
            height=options.height,
            latents=latents,
            output_type="latent",
        ).images
        unscaled = latents.to(models.vae_dtype) / pipe.vae.config.scaling_factor
        picture = pipe.vae.decode(unscaled, return_dict=False)[0]
        pipe.image_processor.postprocess(picture.detach(), output_type="pil")
        return latents

    return draw


def _cold_start(name: str, steps: int, device: str, dtype: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline", "generate", PROMPT, "--model", name]
        command += ["--sampler", SAMPLER, "--steps", str(steps), "--device", device]
        command += ["--dtype", dtype, "-o", str(Path(folder) / "apple.png")]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began
