"""Read a model's default settings (generation.json) and its vocabulary (vocabulary.json)."""

from __future__ import annotations

from typing import Any

from ..errors import InputError, short
from ..model_files.manifest import ModelManifest

# The options for which a model has defaults.
DEFAULTS = ("sampler", "schedule", "steps", "cfg", "width", "height")


def read_defaults(manifest: ModelManifest, predicts: str) -> dict[str, Any]:
    """Return a model's default options: sampler, schedule, steps, cfg, width and height, by name.

    They are those of the file generation.json in its folder; what that lacks follows from the
    architecture, such as the size from the UNet. predicts: what the UNet predicts, "epsilon" or
    "v_prediction". Raises InputError where generation.json has an unknown or invalid option.
    """
    from ..options import GenerateOptions
    from ..samplers import check_pair

    unet, vae = manifest.networks["unet"].config, manifest.networks["vae"].config
    context_width = unet.get("cross_attention_dim", 1280)
    if context_width == 768:
        side = 512
    elif context_width == 1024:
        side = 768 if predicts == "v_prediction" else 512
    else:
        latents = unet.get("sample_size") or 64
        latents = min(latents) if isinstance(latents, list) else latents
        side = int(latents) * 2 ** (len(vae.get("block_out_channels", [0])) - 1)
        side = min(max(side // 8 * 8, 64), 2048)
    values: tuple[Any, ...] = ("euler_a", "automatic", 20, 7.0, side, side)
    defaults: dict[str, Any] = dict(zip(DEFAULTS, values, strict=True))
    path = manifest.path / "generation.json"
    if "generation.json" not in manifest.extras:
        return defaults
    own = manifest.extras["generation.json"]
    if not isinstance(own, dict) or not set(own) <= set(DEFAULTS):
        raise InputError(f"{short(path)} must hold an object of {', '.join(DEFAULTS)}.")
    try:
        own = {k: v for k, v in GenerateOptions(**own).model_dump().items() if k in own}
        defaults |= {k: v for k, v in own.items() if v is not None}
        if "schedule" not in own and check_pair(defaults["sampler"], defaults["schedule"]):
            defaults["schedule"] = "automatic"
        GenerateOptions(**defaults)
    except InputError as error:
        raise InputError(f"{short(path)}: {error}") from None
    return defaults


def read_vocabulary(manifest: ModelManifest) -> list[dict[str, Any]] | None:
    """Return what a small model with its own vocabulary can draw, or None for any other model.

    It is the content of the file vocabulary.json in the model's folder: for each thing a dict with
    the texts "emoji", "en" and "zh" (of at most 200 characters) and possibly other fields. Raises
    InputError for another content.
    """
    path = manifest.path / "vocabulary.json"
    if "vocabulary.json" not in manifest.extras:
        return None
    rows = manifest.extras["vocabulary.json"]
    if not isinstance(rows, list) or len(rows) > 100_000:
        raise InputError(f"{short(path)} must be a list of what the model knows.")
    for row in rows:
        if not isinstance(row, dict) or not {"emoji", "en", "zh"} <= row.keys():
            raise InputError(f"{short(path)}: {short(row)} must have emoji, en and zh.")
        if not all(isinstance(row[k], str) and len(row[k]) <= 200 for k in ("emoji", "en", "zh")):
            raise InputError(f"{short(path)}: the emoji, en and zh of {short(row)} must be texts.")
    return rows
