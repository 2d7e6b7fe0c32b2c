"""`python -m pipeline bench`: time whole pictures against diffusers' StableDiffusionPipeline.

Both load the same weights in the same dtype on the same device and draw the same picture from the
same noise. They run alternately, so that a busy machine slows both equally. It prints the median
times, their ratio and the largest difference of the final latents.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .device_flags import add_device_flags

if TYPE_CHECKING:
    import torch

    from ..model import Models
    from ..options import ResolvedOptions

PROMPT = "a red apple on a blue background"
SAMPLER, SCHEDULE = "dpmpp_2m", "karras"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command `bench` (time against diffusers) to `parser`.

    They are model, steps, number of runs, device and dtype.
    """
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    add_device_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Run `python -m pipeline bench`: measure and print the time to draw a picture.

    The time is compared with what diffusers needs for the same picture.
    """
    from ..loading.silence import silence_libraries

    with silence_libraries():
        measure(
            args.model, steps=args.steps, repeats=args.repeats, device=args.device, dtype=args.dtype
        )


def measure(name: str, *, steps: int, repeats: int, device: str, dtype: str) -> dict[str, float]:
    """Time drawing a picture with this pipeline and with diffusers; print and return the results.

    The dict that is returned has:
      "ours", "diffusers"   median seconds to draw the picture
      "recorded"            the same of ours while all steps and attention maps are recorded
      "ratio", "recording"  how many times as long as "ours" take "diffusers" and "recorded"
      "difference"          largest absolute difference of the final latents, ours to diffusers'
      "cold"                seconds from starting a new process until it has written the picture
    name: the model's. repeats: how often each draws the picture. device, dtype: as on the command
    line, such as "auto". Raises InputError for an unknown model, for steps outside 1 to 200 and for
    repeats below 1.
    """
    if not 1 <= steps <= 200 or repeats < 1:
        raise InputError("--steps must be from 1 to 200 and --repeats at least 1.")
    import torch

    from ..introspection.recording import Recorder
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
        assert options.seed is not None
        factor = 2 ** (len(models.vae.config.block_out_channels) - 1)
        channels = models.vae.config.latent_channels
        shape = (channels, options.height // factor, options.width // factor)
        latents = noise.first_noise(noise.generator_for(options.seed), *shape)
        return peer(latents.to(models.device, models.dtype))

    def recorded() -> torch.Tensor:
        *_, result = Recorder(models, models.stream(options, words=True))
        return result.latents[0]

    draws = {"ours": ours, "recorded": recorded, "diffusers": theirs}
    finals = {who: draw().float().cpu() for who, draw in draws.items()}  # which also warms up
    # With both in the same float format only the sampler's own rounding remains.
    difference = (finals["ours"] - finals["diffusers"]).abs().max().item()
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


def _peer(models: Models, options: ResolvedOptions) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load the same model in diffusers; return a function that draws the same picture with it.

    The function takes the initial noise (1, C, h, w), denoises and decodes it with the settings
    `options`, and returns the final latents.
    """
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

    def draw(latents: torch.Tensor) -> torch.Tensor:
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
    """Return the seconds that `python -m pipeline generate` takes from start to written file.

    name: the model's. device, dtype: as on the command line ("auto").
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline", "generate", PROMPT, "--model", name]
        command += ["--sampler", SAMPLER, "--steps", str(steps), "--device", device]
        command += ["--dtype", dtype, "-o", str(Path(folder) / "apple.png")]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began
