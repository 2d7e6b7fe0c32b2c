"""Export the pixel upscaler, compare its PSNR with Lanczos and bicubic, and write its model card.

The test scenes show emoji and use random seeds that training never uses, as 8-bit pictures. All
PSNR values are in dB over RGB, averaged over scenes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open

from ...disk import make_folder, write_text
from ...images import upscaler
from ..emoji import card
from ..loop import load_ema, newest_checkpoint, save_atomically, step_generator
from ..sheet import save_sheet
from .crops import (
    AUTOENCODED,
    CROP,
    DEGRADED,
    FREE,
    HOLD_OUT_EVERY,
    SceneRenderer,
    autoencode,
    downscale,
    load_sprites_8bit,
    split_emojis,
    to_image,
    to_tensor,
)

SEED = 2**31  # larger than every seed of training
TIMED_SIDES = (128, 512)  # sides of the pictures whose doubling is timed
MARGIN = 4  # pixels around an object that count as part of it
Methods = dict[str, Callable[[Image.Image, int, int], Image.Image]]


def export(folder: Path, run: Path) -> None:
    """Write the trained upscaler into the model folder `folder`, so that it can be loaded.

    Writes the EMA weights of the newest checkpoint in `run`/upscaler in fp16, config.json (size of
    the network) and training.json (how long it was trained), and deletes the outdated
    evaluation.json. Raises FileNotFoundError if there is no checkpoint.
    """
    model = upscaler.Upscaler()
    load_ema(model, run / "upscaler")
    make_folder(folder)
    save_atomically(
        {k: v.half() for k, v in model.state_dict().items()}, folder / upscaler.WEIGHTS, {}
    )
    _write_json(folder / "config.json", model.config)
    checkpoint = newest_checkpoint(run / "upscaler")
    assert checkpoint is not None  # load_ema has just read it
    with safe_open(checkpoint, "pt") as file:
        header = file.metadata()
    batch = json.loads(header["config"])["batch"]
    history = {
        "steps": int(header["step"]),
        "crops": int(header["step"]) * batch,
        "minutes": round(float(header["seconds"]) / 60, 1),
        "machine": card.machine(),
    }
    _write_json(folder / "training.json", history)
    (folder / "evaluation.json").unlink(missing_ok=True)  # of the weights before


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def psnr(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Return the peak signal-to-noise ratio of two pictures (3, H, W) in [0, 1], in dB, up to 100.

    where: boolean mask (H, W) of the pixels to compare; None compares all.
    """
    error = (a.double() - b.double()).square().mean(0)
    error = error.mean() if where is None else error[where].mean()
    return -10 * math.log10(max(float(error), 1e-10))


def object_mask(truth: torch.Tensor) -> torch.Tensor:
    """Return a mask (H, W) of the emoji in a picture, to measure the upscaler on them alone.

    truth: the picture (3, H, W) in [0, 1]. True are the pixels that differ from the plain
    background, whose colour is that of the top left pixel, and the MARGIN pixels around them.
    """
    objects = (truth - truth[:, :1, :1]).abs().amax(0) > 1.5 / 255
    return F.max_pool2d(objects[None].float(), 2 * MARGIN + 1, 1, MARGIN)[0] > 0


def _resize_bicubic(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)


def evaluate(
    folder: Path, data: Path, base: Path, *, count: int = 200, sheet: Path | None = None
) -> dict[str, Any]:
    """Measure the upscaler "glass" in `folder` against Lanczos and bicubic; return the results.

    The test pictures show `count` scenes of emoji that it was not trained on. data: folder of the
    npm package with the emoji's pictures; base: model folder whose VAE blurs some inputs; sheet:
    PNG file for eight rows of examples (input, Lanczos, glass, original), or None. The result is a
    dict:

    "rows": dict from kind of picture, such as "any size, on a gradient", to a dict: mean PSNR in
        dB of "glass", "lanczos" and "bicubic", mean "gain" of glass over Lanczos in dB, and
        "better", the share (0 to 1) of pictures in which glass beats Lanczos
    "seconds": dict from a side in pixels ("128") to the CPU seconds of doubling such a picture
    "machine": the name of the computer's GPU or CPU
    "scenes", "held_out_emoji": the numbers of scenes and of emoji
    """
    torch.manual_seed(0)
    upscaler.load.cache_clear()  # the file may have changed
    model = upscaler.load(folder=folder)
    methods: Methods = {
        "glass": model.fit,
        "lanczos": upscaler.UPSCALERS["lanczos"].enlarge,
        "bicubic": _resize_bicubic,
    }
    vae = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).eval()
    _, held_out = split_emojis(data)
    renderer = SceneRenderer(load_sprites_8bit(data, held_out))
    measured: dict[str, list[dict[str, float]]] = {}
    shown: list[torch.Tensor] = []
    for i in range(count):
        truth = renderer.draw_known(step_generator(SEED, 2 * i))
        small = downscale(truth)
        enlarged = _enlarge(methods, small)
        mask = object_mask(truth)
        free = renderer.draw_free(step_generator(SEED, 2 * i + 1))
        blurred = autoencode(small, vae)
        blurred_enlarged = _enlarge(methods, blurred)
        for row, pictures, original, where in (
            ("scenes of held-out emoji", enlarged, truth, None),
            ("of these, the objects alone", enlarged, truth, mask),
            ("any size, on a gradient", _enlarge(methods, downscale(free)), free, None),
            ("scenes through the autoencoder", blurred_enlarged, truth, None),
        ):
            figures = {k: psnr(p, original, where) for k, p in pictures.items()}
            measured.setdefault(row, []).append(figures)
        if i < 4:
            nearest = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
            shown += [nearest, enlarged["lanczos"], enlarged["glass"], truth]
            nearest = blurred.repeat_interleave(2, 1).repeat_interleave(2, 2)
            shown += [nearest, blurred_enlarged["lanczos"], blurred_enlarged["glass"], truth]
    if sheet:
        save_sheet(torch.stack(shown) * 2 - 1, sheet, columns=4)
    return {
        "scenes": count,
        "held_out_emoji": len(held_out),
        "rows": {row: _summarize(figures) for row, figures in measured.items()},
        "seconds": {str(side): _time_doubling(model, side) for side in TIMED_SIDES},
        "machine": card.machine(),
    }


def _enlarge(methods: Methods, small: torch.Tensor) -> dict[str, torch.Tensor]:
    image = to_image(small)
    width, height = 2 * image.width, 2 * image.height
    return {name: to_tensor(method(image, width, height)) for name, method in methods.items()}


def _summarize(figures: list[dict[str, float]]) -> dict[str, float]:
    mean = {k: round(sum(f[k] for f in figures) / len(figures), 2) for k in figures[0]}
    gains = [f["glass"] - f["lanczos"] for f in figures]
    better = sum(g > 0 for g in gains) / len(gains)
    return {**mean, "gain": round(sum(gains) / len(gains), 2), "better": round(better, 3)}


def _time_doubling(model: upscaler.Upscaler, side: int) -> float:
    """Return the CPU seconds that `model` needs on one core to double a picture of `side` pixels.

    The picture is square, and the faster of two runs counts.
    """
    image = Image.effect_noise((side, side), 60).convert("RGB")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(2):
            begin = time.process_time()
            model.double_size(image)
            seconds.append(time.process_time() - begin)
    finally:
        torch.set_num_threads(threads)
    return round(min(seconds), 2)


def report(table: dict[str, Any]) -> str:
    """Return the upscaler's measured results as Markdown for its model card: a table and sentences.

    table: a dict that `evaluate` returns, with PSNR values by kind of picture ("rows"), CPU times
    ("seconds") and the numbers of pictures and emoji.
    """
    lines = [
        f"PSNR in dB, the mean of {table['scenes']} scenes each, of {table['held_out_emoji']}"
        " held-out emoji, 128x128 to 256x256, Pillow's filters beside it:",
        "",
        "| | glass | Lanczos | bicubic | gain over Lanczos | better than Lanczos in |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row} | {r['glass']:.2f} | {r['lanczos']:.2f} | {r['bicubic']:.2f} |"
        f" {r['gain']:+.2f} dB | {r['better']:.1%} |"
        for row, r in table["rows"].items()
    ]
    times = ", ".join(f"{s} to {2 * int(s)} pixels {t:.2f} s" for s, t in table["seconds"].items())
    return "\n".join([*lines, "", f"Time of one processor core ({table['machine']}): {times}."])


def write_card(folder: Path) -> None:
    """Write README.md, the model card of the upscaler, into its model folder `folder`.

    It is made from three files there: training.json (how long it was trained), config.json (size of
    the network) and evaluation.json (measured results); without the last the card says that the
    model is not measured yet.
    """
    run = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sum(p.numel() for p in upscaler.Upscaler(**config).parameters())
    size = (folder / upscaler.WEIGHTS).stat().st_size
    noisy, every = DEGRADED, HOLD_OUT_EVERY
    table = "Not measured yet."
    if (folder / "evaluation.json").exists():
        table = report(json.loads((folder / "evaluation.json").read_text(encoding="utf-8")))
    write_text(
        folder / "README.md",
        f"""---
license: apache-2.0
pipeline_tag: image-to-image
---

# glass: a pixel upscaler trained from zero

Doubles pictures: bicubic enlargement plus the residual that a small network predicts.
{config["blocks"]} residual blocks of {config["channels"]} channels at the small size, then pixel
shuffle: {weights:,} weights, {size / 1e6:.2f} MB in fp16. Code: `pipeline/images/upscaler.py`.
Made for
what the embedded model `emoji` draws; it was never shown a photograph.

## Data and licences

Microsoft's Fluent 3D emoji (npm package `@lobehub/fluent-emoji-3d`, MIT) at their own 256x256 or
smaller, never enlarged; no other pictures or weights. {FREE:.0%} of the scenes hold objects of any
size on a gradient, the rest are the embedded model's kinds of scenes. The input is the scene
reduced by Pillow's antialiased bicubic filter; {AUTOENCODED:.0%} of it went through the embedded
autoencoder as well, {noisy:.0%} has noise or JPEG's traces. One emoji of {every} is held out, and
with it all that begin with the same Unicode character. The weights are Apache-2.0.

## Training

`python -m pipeline train upscaler --minutes N`, then `python -m pipeline train export-upscaler`:
{run["steps"]:,} steps, {run["crops"]:,} crops of {CROP}x{CROP}, {run["minutes"]:.0f} minutes on
{run["machine"]}, one of them, which had other work too. L1, Adam, averaged weights.

## Evaluation

`python -m pipeline train evaluate-upscaler`

{table}
""",
    )


def measure(
    folder: Path, data: Path, base: Path, *, count: int = 200, sheet: Path | None = None
) -> str:
    """Measure the upscaler in `folder`, write evaluation.json and README.md there; return Markdown.

    data: folder of the npm package with the emoji's pictures; base: model folder whose VAE blurs
    some inputs; count: number of test pictures; sheet: PNG file for example pictures, or None. The
    Markdown is a table of the results.
    """
    table = evaluate(folder, data, base, count=count, sheet=sheet)
    _write_json(folder / "evaluation.json", table)
    write_card(folder)
    return report(table)
