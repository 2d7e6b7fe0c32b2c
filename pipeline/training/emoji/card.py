"""Write the model card of the embedded model, and keep the training history that it shows."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ...disk import make_folder, write_text
from ..loop import newest_checkpoint
from . import evaluate
from .vocabulary import COLOURS, OBJECTS


def machine() -> str:
    """Return the name of the GPU, or without one the number of cores and the name of the CPU.

    Model cards state it as the machine of the training or of the measurement.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return f"{os.cpu_count()} cores of {model}"


def record_base(run: Path, stage: str, base: Path | None) -> None:
    """Note in a training run how long its initial weights were trained before, as `base.json`.

    The exported model's training.json then includes this. The note is what `base`/training.json
    says of `stage`, and is written to the folder `run`/`stage`. run: folder of the run; stage:
    "clip", "vae", "decoder" or "unet"; base: model folder that the training starts from. Does
    nothing if `base` is None or says nothing of the stage, or if the stage already has a
    checkpoint.
    """
    source = base / "training.json" if base else None
    if source is None or not source.exists() or newest_checkpoint(run / stage):
        return
    before = json.loads(source.read_text(encoding="utf-8"))["stages"].get(stage)
    if before:
        write_text(make_folder(run / stage) / "base.json", json.dumps(before))


def training_history(run: Path, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return how long each network of a training run was trained, for the model's training.json.

    The result is {"stages": {stage: {"steps", "pictures", "minutes", "machine"}}} with the stages
    "clip", "vae", "decoder" and "unet", read from the newest checkpoints and including the training
    of the weights that the run started from. run: folder of the run; before: such a dict of an
    earlier export or None, which fills in the stages that this run did not train.
    """
    stages = dict((before or {}).get("stages", {}))
    for stage in ("clip", "vae", "decoder", "unet"):
        path = newest_checkpoint(run / stage)
        if path is None:
            continue
        with safe_open(path, "pt") as file:
            header = file.metadata()
        steps, batch = int(header["step"]), json.loads(header["config"])["batch"]
        recorded = run / stage / "base.json"
        base = json.loads(recorded.read_text(encoding="utf-8")) if recorded.exists() else {}
        stages[stage] = {
            "steps": steps + base.get("steps", 0),
            "pictures": steps * batch + base.get("pictures", 0),
            "minutes": round(float(header["seconds"]) / 60 + base.get("minutes", 0), 1),
            "machine": machine(),
        }
    return {"stages": stages}


def write(folder: Path) -> None:
    """Write README.md, the model card of the emoji model, into the model folder `folder`.

    It is made from two files there: training.json, how long each network was trained, and
    evaluation.json, the results of the evaluation; without the latter the card says that the model
    is not measured yet.
    """
    trained = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    evaluation = folder / "evaluation.json"
    rows = "\n".join(
        f"| {stage} | {s['steps']:,} | {s['pictures']:,} | {s['minutes']:.0f} | {s['machine']} |"
        for stage, s in trained["stages"].items()
    )
    table = "Not measured yet."
    if evaluation.exists():
        table = evaluate.report(json.loads(evaluation.read_text(encoding="utf-8")))
    colours = ", ".join(COLOURS)
    count = sum(len(v) for v in OBJECTS.values())
    write_text(
        folder / "README.md",
        f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
language: [en, zh]
---

# emoji: a latent diffusion model trained from zero

Text to image at 128x128, small enough for a laptop's processor, in diffusers' folder format.

It knows {count} objects ({", ".join(OBJECTS)}; see `vocabulary.json`), one or two of them in a
picture, left of / right of / above / below each other, on a plain background of a named colour
({colours}), in English and Chinese. It knows nothing else.

## Parts

- `text_encoder`, `tokenizer`: CLIP's text tower with its own byte-level BPE vocabulary.
- `clip`: the image tower and both projections, for the evaluation.
- `vae`: AutoencoderKL, 8 pixels a latent, 4 channels.
- `unet`: UNet2DConditionModel, velocity prediction; the words enter by cross attention and, pooled,
  with the time embedding.

## Data and licences

Pictures: Microsoft's Fluent 3D emoji (npm package `@lobehub/fluent-emoji-3d`, MIT). Names and
keywords: Unicode CLDR (`cldr-annotations-full`, `cldr-annotations-derived-full`, Unicode licence).
Scenes and captions are composed on the fly. No other weights, pictures or captions. The weights are
Apache-2.0.

## Training

`python -m pipeline train all --minutes N`, from zero, in this project's own code.

| stage | steps | pictures | minutes | machine |
|---|---|---|---|---|
{rows}

## Evaluation

`python -m pipeline train evaluate`

{table}
""",
    )
