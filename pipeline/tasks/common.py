"""Helpers that tasks share: sizes, starting from a picture, tiles, second passes, batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..events import Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..events import Events, Step
    from ..latents.initial_state import InitialState
    from ..model import Models

PIXELS = ("glass", "lanczos")  # keys of UPSCALERS in pipeline/images/upscaler.py
LATENT = "latent"  # enlarges the latents instead of the picture
ENLARGERS = (*PIXELS, LATENT)  # choices for enlarging the first pass of hires
MAX_AREA = 32_000_000  # pixels of an enlarged picture
MAX_SIDE = 8192  # pixels of an enlarged picture's width or height
MAX_DEFAULT_TILE = 768  # pixels of a tile's side where the user names none
# What Stable Diffusion 1.5 draws where a request leaves it out.
USUAL: Mapping[str, Any] = {"width": 512, "height": 512, "steps": 20, "sampler": "euler"}


def sampling_work(
    options: Any,
    defaults: Mapping[str, Any],
    size: tuple[int, int] | None = None,
    strength: float | None = None,
) -> float:
    """Return how much the sampling of one picture takes, in pixels times calls of the UNet.

    options: of the request. defaults: the model's width, height, steps and sampler, for options
    that are None. size: (width, height) at which it is drawn in pixels; None: the options' own.
    strength: of image to image, from 0 to 1, which skips the first steps; None: no step is skipped.
    """
    from ..samplers import SAMPLERS, start_step_for

    steps = options.steps or defaults["steps"]
    if strength is not None:
        steps -= start_step_for(strength, steps)
    sampler = SAMPLERS.get(options.sampler or defaults["sampler"])
    width, height = size or (
        options.width or defaults["width"],
        options.height or defaults["height"],
    )
    return float(width * height * steps * (sampler.calls if sampler else 1))


def redrawn_size(
    options: Any, defaults: Mapping[str, Any], size: tuple[int, int]
) -> tuple[int, int]:
    """Return the (width, height) at which a picture of `size` (width, height) is drawn anew.

    As `resolve_size` finds it, for an autoencoder that divides sides by 8. options: of the request,
    whose sides go first. defaults: the model's own width and height.
    """
    from ..images.open import working_size

    native = defaults["width"], defaults["height"]
    return working_size(size, native, 8, (options.width, options.height))


def resolve_size(models: Models, options: Any, size: tuple[int, int]) -> Any:
    """Fill in the defaults of a task's options, and the size at which to draw a given picture anew.

    size: (width, height) of the picture in pixels. A side that the user gave is kept; if one is
    missing, it follows from the picture's aspect ratio; if both are, the area is near that for
    which the model was trained. The result has the class of `options`.
    """
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


def start_from_image(
    models: Models, options: Any, image: Image, fields: Mapping[str, Any], **more: Any
) -> InitialState:
    """Return the initial state of image to image: the encoded picture, and the step to begin at.

    options: those of the request with all defaults filled in, with a field `strength` (0 to 1).
    image: a picture that has the options' width and height. fields: names and values to add to
    A1111's parameters text of the result. more: other fields of InitialState.
    """
    from .. import samplers
    from ..latents.autoencode import encode_picture
    from ..latents.initial_state import InitialState

    first = samplers.start_step_for(options.strength, options.steps)
    return InitialState(encode_picture(models, image), first, fields=fields, **more)


def detail_schedule(sampler: str) -> str:
    """Return the default noise schedule for adding details to an enlarged picture.

    It is "karras" if the sampler takes it, because Karras noise levels are dense at low noise,
    where details form. Otherwise "automatic".
    """
    from ..samplers import SAMPLERS

    return "karras" if "karras" in SAMPLERS[sampler].schedules else "automatic"


def scaled_size(models: Models, size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return `size` (width, height) times `scale`, rounded to sizes that the model can draw.

    Raises InputError for a side above 8192 pixels (MAX_SIDE) or more than 32 million in all.
    """
    from ..latents import vae

    grain = max(8, vae.factor(models.vae))
    width, height = (max(64, round(side * scale / grain) * grain) for side in size)
    if max(width, height) > MAX_SIDE or width * height > MAX_AREA:
        raise InputError(
            f"A scale of {scale:g} makes {width}x{height} pixels of {size[0]}x{size[1]}; at most"
            f" {MAX_SIDE} a side and {MAX_AREA // 10**6} million in all are drawn."
        )
    return width, height


def resolve_tiling(models: Models, options: Any) -> tuple[int, int]:
    """Return side and overlap of the tiles in which a large picture is drawn, in latent pixels.

    options: with fields `tile` and `overlap` in pixels, 0 for the default. The default tile has
    twice the model's training size, at most 768 pixels but no less than the training size; the
    default overlap is half a tile. Raises InputError for tiles that are too small for their
    overlap.
    """
    from ..latents import vae

    return tiling(models.defaults, options, vae.factor(models.vae))


def tiling(defaults: Mapping[str, Any], options: Any, factor: int = 8) -> tuple[int, int]:
    """Return side and overlap of the tiles in which a large picture is drawn, in latent pixels.

    defaults: the model's own width and height. options, errors: as of `resolve_tiling`. factor:
    pixels of the picture for one of the latents, in each direction.
    """
    native = min(defaults["width"], defaults["height"])
    side = (options.tile or max(native, min(2 * native, MAX_DEFAULT_TILE))) // factor
    overlap = options.overlap // factor if options.overlap else side // 2
    if side < 4 or overlap >= side:
        raise InputError(
            f"Tiles of {side * factor} pixels cannot overlap by {overlap * factor}; tiles must be"
            f" at least {4 * factor} pixels and larger than what they share."
        )
    return side, overlap


def second_pass(
    models: Models, fine: Any, first: Result, fields: Mapping[str, Any]
) -> InitialState:
    """Return the initial state of a second pass: the first pass's picture or latents, enlarged.

    fine: the options of the second pass with all defaults filled in, with its width, height,
    `strength` and `upscaler`. first: the result of the first pass. fields: names and values to add
    to A1111's parameters text of the result.
    """
    if fine.upscaler != LATENT:
        from ..images.upscaler import UPSCALERS

        upscaler = UPSCALERS[fine.upscaler]
        image = upscaler.enlarge(first.images[0], fine.width, fine.height, device=models.device)
        return start_from_image(models, fine, image, fields)
    from torch.nn.functional import interpolate

    from .. import samplers
    from ..latents import vae
    from ..latents.initial_state import InitialState

    factor = vae.factor(models.vae)
    size = fine.height // factor, fine.width // factor
    clean = interpolate(first.latents[0].float().cpu(), size, mode="bicubic")
    return InitialState(clean, samplers.start_step_for(fine.strength, fine.steps), fields=fields)


def renumber(
    events: Iterable[Step | Result], before: int, total: int, seconds: float = 0.0
) -> Generator[Step, None, Result]:
    """Yield the Steps of one of several passes, numbered through all passes; return its Result.

    For pictures drawn in two passes, as by the high-resolution fix. events: of the pass. before:
    steps of the earlier passes. total: steps of all passes. seconds: time that the earlier passes
    took.
    """
    for event in events:
        if isinstance(event, Result):
            result = replace(event, seconds=seconds + event.seconds)
            break
        yield replace(
            event, index=before + event.index, total=total, seconds=seconds + event.seconds
        )
    return result


def for_each_image(options: Any, draw: Callable[[Any], Generator[Step, None, Result]]) -> Events:
    """Draw the `options.count` pictures one after the other: yield their Steps, then one Result.

    For tasks that cannot draw them as one batch. draw: called with the options of one picture;
    yields its Steps and returns its Result.
    """
    from .. import engine

    results: list[Result] = []
    for image in range(options.count):
        spent = sum(r.seconds for r in results)
        steps = draw(single(options, image))
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


def single(options: Any, image: int) -> Any:
    """Return the options that draw one picture of a batch alone: count 1 and that picture's seed.

    image: the picture's index in the batch, from 0. options: the batch's, with a seed.
    """
    counts = "variation_seed" if options.variation_strength else "seed"
    return options.model_copy(update={"count": 1, counts: getattr(options, counts) + image})
