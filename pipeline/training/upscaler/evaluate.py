"""How good the pixel upscaler is, beside Lanczos and bicubic, and its model card.

Measured on emoji that it never saw, in scenes of seeds that it never saw, through Pillow's 8 bits
all the way, as people use it. PSNR in dB over RGB 0..255, the mean over scenes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open

from ...images import upscaler
from ..emoji import card
from ..loop import load_ema, newest_checkpoint, save_atomically, step_generator
from ..sheet import save_sheet
from .train import (
    CROP,
    DAMAGED,
    EVERY,
    FREE,
    SOFT,
    Scenes,
    reduced,
    softened,
    split,
    sprites,
    to_image,
    to_tensor,
)

SEED = 2**31  # training's are below
TIMED = (128, 512)  # sides of pictures that are doubled against the clock
MARGIN = 4  # pixels around an object that count as its own


def export(folder: Path, run: Path) -> None:
    """Write the averaged weights of `run`'s newest checkpoint into `folder`, in fp16."""
    model = upscaler.Upscaler()
    load_ema(model, run / "upscaler")
    folder.mkdir(parents=True, exist_ok=True)
    save_atomically(
        {k: v.half() for k, v in model.state_dict().items()}, folder / upscaler.WEIGHTS, {}
    )
    _write(folder / "config.json", model.config)
    with safe_open(newest_checkpoint(run / "upscaler"), "pt") as file:
        header = file.metadata()
    batch = json.loads(header["config"])["batch"]
    made = {
        "steps": int(header["step"]),
        "crops": int(header["step"]) * batch,
        "minutes": round(float(header["seconds"]) / 60, 1),
        "machine": card.machine(),
    }
    _write(folder / "training.json", made)
    (folder / "evaluation.json").unlink(missing_ok=True)  # it measured other weights


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def psnr(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Of two pictures (3, H, W) in 0..1, over the pixels `where` (H, W) is true; at most 100 dB."""
    error = (a.double() - b.double()).square().mean(0)
    error = error.mean() if where is None else error[where].mean()
    return -10 * math.log10(max(float(error), 1e-10))


def around_objects(truth: torch.Tensor) -> torch.Tensor:
    """Where (3, H, W) is not the plain ground of its top left corner, and a little around."""
    objects = (truth - truth[:, :1, :1]).abs().amax(0) > 1.5 / 255
    return F.max_pool2d(objects[None].float(), 2 * MARGIN + 1, 1, MARGIN)[0] > 0


def _bicubic(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)


def evaluate(
    folder: Path, data: Path, base: Path, *, count: int = 200, sheet: Path | None = None
) -> dict:
    """Measures the upscaler of `folder` on `count` scenes of held-out emoji.

    data: the packages; base: a model folder, for its autoencoder; sheet: a PNG of some pictures,
    each as the small one, by Lanczos, by glass, and as it is.
    """
    torch.manual_seed(0)
    upscaler.load.cache_clear()  # the file may be another one by now
    model = upscaler.load(folder=folder)
    ways = {
        "glass": model.fit,
        "lanczos": upscaler.UPSCALERS["lanczos"].enlarge,
        "bicubic": _bicubic,
    }
    vae = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).eval()
    _, held = split(data)
    scenes = Scenes(sprites(data, held))
    found: dict[str, list[dict[str, float]]] = {}
    shown: list[torch.Tensor] = []
    for i in range(count):
        truth = scenes.known(step_generator(SEED, 2 * i))
        small = reduced(truth)
        drawn = _enlarged(ways, small)
        inside = around_objects(truth)
        free = scenes.free(step_generator(SEED, 2 * i + 1))
        soft = softened(small, vae)
        soft_drawn = _enlarged(ways, soft)
        for row, pictures, right, where in (
            ("scenes of held-out emoji", drawn, truth, None),
            ("of these, the objects alone", drawn, truth, inside),
            ("any size, on a gradient", _enlarged(ways, reduced(free)), free, None),
            ("scenes through the autoencoder", soft_drawn, truth, None),
        ):
            rates = {k: psnr(p, right, where) for k, p in pictures.items()}
            found.setdefault(row, []).append(rates)
        if i < 4:
            nearest = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
            shown += [nearest, drawn["lanczos"], drawn["glass"], truth]
            nearest = soft.repeat_interleave(2, 1).repeat_interleave(2, 2)
            shown += [nearest, soft_drawn["lanczos"], soft_drawn["glass"], truth]
    if sheet:
        save_sheet(torch.stack(shown) * 2 - 1, sheet, columns=4)
    return {
        "scenes": count,
        "held_out_emoji": len(held),
        "rows": {row: _summary(rates) for row, rates in found.items()},
        "seconds": {str(side): _seconds(model, side) for side in TIMED},
        "machine": card.machine(),
    }


def _enlarged(ways: dict[str, Callable], small: torch.Tensor) -> dict[str, torch.Tensor]:
    image = to_image(small)
    return {k: to_tensor(way(image, 2 * image.width, 2 * image.height)) for k, way in ways.items()}


def _summary(rates: list[dict[str, float]]) -> dict[str, float]:
    mean = {k: round(sum(r[k] for r in rates) / len(rates), 2) for k in rates[0]}
    gains = [r["glass"] - r["lanczos"] for r in rates]
    better = sum(g > 0 for g in gains) / len(gains)
    return {**mean, "gain": round(sum(gains) / len(gains), 2), "better": round(better, 3)}


def _seconds(model: upscaler.Upscaler, side: int) -> float:
    """Of one processor core, the better of two."""
    image = Image.effect_noise((side, side), 60).convert("RGB")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = []
        for _ in range(2):
            began = time.process_time()
            model.doubled(image)
            spent.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return round(min(spent), 2)


def report(table: dict) -> str:
    """The measurements as a Markdown table, with what was measured."""
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
    took = ", ".join(f"{s} to {2 * int(s)} pixels {t:.2f} s" for s, t in table["seconds"].items())
    return "\n".join([*lines, "", f"Time of one processor core ({table['machine']}): {took}."])


def write_card(folder: Path) -> None:
    """Write `folder`/README.md from training.json and, where there is one, evaluation.json."""
    made = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sum(p.numel() for p in upscaler.Upscaler(**config).parameters())
    size = (folder / upscaler.WEIGHTS).stat().st_size
    table = "Not measured yet."
    if (folder / "evaluation.json").exists():
        table = report(json.loads((folder / "evaluation.json").read_text(encoding="utf-8")))
    (folder / "README.md").write_text(
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
reduced by Pillow's antialiased bicubic filter; {SOFT:.0%} of it went through the embedded
autoencoder as well, {DAMAGED:.0%} has noise or JPEG's traces. One emoji of {EVERY} is held out, and
with it all that begin with the same Unicode character. The weights are Apache-2.0.

## Training

`python -m pipeline train upscaler --minutes N`, then `python -m pipeline train export-upscaler`:
{made["steps"]:,} steps, {made["crops"]:,} crops of {CROP}x{CROP}, {made["minutes"]:.0f} minutes on
{made["machine"]}, one of them, which had other work too. L1, Adam, averaged weights.

## Evaluation

`python -m pipeline train evaluate-upscaler`

{table}
""",
        encoding="utf-8",
    )


def measure(
    folder: Path, data: Path, base: Path, *, count: int = 200, sheet: Path | None = None
) -> str:
    """Evaluate `folder`, keep evaluation.json and the card there; the table as text."""
    table = evaluate(folder, data, base, count=count, sheet=sheet)
    _write(folder / "evaluation.json", table)
    write_card(folder)
    return report(table)
