"""What tasks share: the size to work at, where to begin from a picture, several passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..events import Result

if TYPE_CHECKING:
    from ..latents.initial_state import InitialState

PIXELS = ("glass", "lanczos")  # of UPSCALERS in pipeline/images/upscaler.py
LATENT = "latent"  # the latents themselves are enlarged
WAYS = (*PIXELS, LATENT)
MAX_AREA = 32_000_000  # pixels of an enlarged picture
MAX_SIDE = 8192
ROOMY = 768  # pixels of a tile: more surroundings mean fewer things drawn where there are none


def sized(models, options: Any, size: tuple[int, int]) -> Any:
    """`options` resolved, width and height those at which the model works on a picture of `size`
    (width, height); see pictures.working_size."""
    from ..images.open import working_size
    from ..latents import vae

    usual = models.defaults
    width, height = working_size(
        size,
        (usual["width"], usual["height"]),
        max(8, vae.factor(models.vae)),
        (options.width, options.height),
    )
    return models.resolve(options.model_copy(update={"width": width, "height": height}))


def begin(models, options: Any, image, fields: Mapping[str, Any], **more: Any) -> InitialState:
    """Where a picture begins that `options.strength` changes `image`, which has its size.

    more: what else an InitialState has.
    """
    from .. import samplers
    from ..latents.autoencode import encode_picture
    from ..latents.initial_state import InitialState

    first = samplers.start_step_for(options.strength, options.steps)
    return InitialState(encode_picture(models, image), first, fields=fields, **more)


def gentle(sampler: str) -> str:
    """The schedule for drawing details, where none was asked for: Karras's levels lie close where
    there is little noise, while even timesteps begin with more than a little."""
    from ..samplers import SAMPLERS

    return "karras" if "karras" in SAMPLERS[sampler].schedules else "automatic"


def larger(models, size: tuple[int, int], scale: float) -> tuple[int, int]:
    """`size` (width, height) `scale` times as large, in multiples of what the model draws."""
    from ..latents import vae

    grain = max(8, vae.factor(models.vae))
    width, height = (max(64, round(side * scale / grain) * grain) for side in size)
    if max(width, height) > MAX_SIDE or width * height > MAX_AREA:
        raise InputError(
            f"A scale of {scale:g} makes {width}x{height} pixels of {size[0]}x{size[1]}; at most"
            f" {MAX_SIDE} a side and {MAX_AREA // 10**6} million in all are drawn."
        )
    return width, height


def tiling(models, options: Any) -> tuple[int, int]:
    """Side and overlap of the tiles in latents, of options' `tile` and `overlap` in pixels."""
    from ..latents import vae

    factor = vae.factor(models.vae)
    native = min(models.defaults["width"], models.defaults["height"])
    side = (options.tile or max(native, min(2 * native, ROOMY))) // factor
    overlap = options.overlap // factor if options.overlap else side // 2
    if side < 4 or overlap >= side:
        raise InputError(
            f"Tiles of {side * factor} pixels cannot overlap by {overlap * factor}; tiles must be"
            f" at least {4 * factor} pixels and larger than what they share."
        )
    return side, overlap


def refined(models, fine: Any, first: Result, fields: Mapping[str, Any]) -> InitialState:
    """Where a second pass begins: the picture of `first` enlarged to the size of `fine`, its
    options, by its `upscaler`."""
    if fine.upscaler != LATENT:
        from ..images.upscaler import UPSCALERS

        upscaler = UPSCALERS[fine.upscaler]
        image = upscaler.enlarge(first.images[0], fine.width, fine.height, device=models.device)
        return begin(models, fine, image, fields)
    from torch.nn.functional import interpolate

    from .. import samplers
    from ..latents import vae
    from ..latents.initial_state import InitialState

    factor = vae.factor(models.vae)
    size = fine.height // factor, fine.width // factor
    clean = interpolate(first.latents[0].float().cpu(), size, mode="bicubic")
    return InitialState(clean, samplers.start_step_for(fine.strength, fine.steps), fields=fields)


def numbered(events: Iterable, before: int, total: int, seconds: float = 0.0):
    """Steps of one pass among `total` of several, after `before` steps and `seconds`; returns its
    Result."""
    for event in events:
        if isinstance(event, Result):
            return replace(event, seconds=seconds + event.seconds)
        yield replace(
            event, index=before + event.index, total=total, seconds=seconds + event.seconds
        )


def each(options: Any, one: Callable[[Any], Iterable]):
    """Steps of options.count pictures, each by `one(its options)`, then the Result of all."""
    from .. import engine

    results = []
    for image in range(options.count):
        spent = sum(r.seconds for r in results)
        steps = one(alone(options, image))
        try:
            while True:
                event = next(steps)
                yield replace(
                    event, image=image, count=options.count, seconds=spent + event.seconds
                )
        except StopIteration as done:
            results.append(done.value)
        finally:
            steps.close()
    yield engine.join_results(results, options)


def alone(options: Any, image: int) -> Any:
    """The options of one picture of a batch."""
    counts = "variation_seed" if options.variation_strength else "seed"
    return options.model_copy(update={"count": 1, counts: getattr(options, counts) + image})
