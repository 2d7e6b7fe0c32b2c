"""Grid (A1111's X/Y/Z plot): a picture for each combination of values of up to three options.

The pictures make a labelled contact sheet: the axis X varies from column to column, Y from row to
row, and Z gives one block of columns and rows for each value. grid_axes.py has the syntax of an
axis. All options are checked before the first picture is drawn. Each picture is the same as when
its options are drawn alone.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from ..errors import InputError, closest, short_repr
from ..events import Result, Step
from ..options import MAX_PROMPT, MAX_SEED, GenerateOptions
from .grid_axes import (
    MAX_CELLS,
    OWN_VAE,
    Axis,
    apply_value,
    fields_set_by,
    parse_axis,
    prefix_error,
)
from .option_types import TaskOptions

if TYPE_CHECKING:
    from ..events import Events
    from ..images.contact_sheet import Place, Sheet
    from ..model import Models
    from ..model_cache import ModelCache
    from ..options import ResolvedOptions

MAX_SHEET = 64_000_000  # pixels of the contact sheet
MAX_SIDE = 16_383  # pixels of its width or height: the limit of WebP, and about that of browsers
AXIS_HELP = 'as "cfg: 3, 5, 7" or "steps: 4-20 (+4)"; of a prompt the first value is replaced'


class Options(TaskOptions):
    """Fields of a grid request (A1111's X/Y/Z plot): options of all pictures, and what varies.

    x, y, z: the axes, each an option and its values such as "cfg: 3, 5, 7"; "" for none.
    """

    x: str = Field("", description=f"What varies from column to column, {AXIS_HELP}")
    y: str = Field("", description="What varies from row to row, written as x")
    z: str = Field("", description="What varies from block to block, written as x")

    @field_validator("x", "y", "z", mode="before")
    @classmethod
    def _axis(cls, value: Any, info) -> str:
        if not isinstance(value, str):
            raise ValueError(
                f"{info.field_name} must be text {AXIS_HELP}, not {short_repr(value)}."
            )
        if len(value) > MAX_PROMPT:
            raise ValueError(
                f"{info.field_name} has {len(value):,} characters; at most {MAX_PROMPT:,} are"
                " allowed."
            )
        if value.strip():
            parse_axis(info.field_name, value)
        return value.strip()

    @model_validator(mode="after")
    def _cells(self) -> Options:
        plan_cells(self, parse_axes(self))
        return self


@dataclass(frozen=True)
class Cell:
    """One picture to draw of a grid, which has a block of columns and rows for each value of z.

    place: indices (column, row, block), each from 0. options: of this picture. model, vae: names of
    another model or autoencoder to draw with; None: the request's own.
    """

    place: tuple[int, int, int]
    options: GenerateOptions
    model: str | None
    vae: str | None


def parse_axes(options: Options) -> dict[str, Axis]:
    """Parse what varies in a grid, by the axis's letter "x", "y" or "z"; empty axes are left out.

    A seed of -1 on an axis becomes another random seed at each call. Raises InputError if there is
    no axis, an axis is invalid, or two axes set the same option.
    """
    axes = {
        letter: parse_axis(letter, text) for letter in "xyz" if (text := getattr(options, letter))
    }
    if not axes:
        raise InputError(f"A grid needs an axis; write one {AXIS_HELP}.")
    setters: dict[str, str] = {}
    for letter, axis in axes.items():
        for name in fields_set_by(axis):
            if name in setters:
                raise InputError(f"The axes {setters[name]} and {letter} both set {name}.")
            setters[name] = letter
    return axes


def plan_cells(options: Options, axes: dict[str, Axis]) -> list[Cell]:
    """Return all pictures to draw of a grid, in the order columns, then rows, then values of z.

    options: the grid's. axes: its parsed axes by "x", "y", "z". Raises InputError for more than 100
    pictures (MAX_CELLS), for a `count` other than 1, and for the first combination of values that
    is invalid.
    """
    if options.count != 1:
        raise InputError(f"A grid draws one picture a cell; count must be 1, not {options.count}.")
    lengths = [len(axes[letter].values) if letter in axes else 1 for letter in "xyz"]
    total = lengths[0] * lengths[1] * lengths[2]
    if total > MAX_CELLS:
        raise InputError(
            f"The grid would be of {' x '.join(map(str, lengths))} = {total:,} pictures; at most"
            f" {MAX_CELLS} are drawn."
        )
    common = {name: getattr(options, name) for name in GenerateOptions.model_fields}
    # Prompts last: the text to replace may come from the axis of the negative prompt.
    order = sorted(axes.values(), key=lambda axis: axis.name == "prompt")
    cells = []
    for block, row, column in product(*(range(n) for n in reversed(lengths))):
        at = dict(zip("xyz", (column, row, block), strict=True))
        fields = dict(common)
        for axis in order:
            fields = apply_value(fields, axis, axis.values[at[axis.letter]])
        model, vae = fields.pop("model", None), fields.pop("vae", None)
        try:
            picture = GenerateOptions(**fields)
        except InputError as error:
            raise _cell_error(axes, (column, row, block), error) from None
        cells.append(Cell((column, row, block), picture, model, vae))
    return cells


def _cell_error(
    axes: dict[str, Axis], place: tuple[int, int, int], error: InputError
) -> InputError:
    """Return `error` with the place in the grid put before its sentence: "At x 3 and y Euler, ...".

    place: indices (column, row, z value) of the picture that cannot be drawn. axes: by letter.
    """
    at = dict(zip("xyz", place, strict=True))
    where = [f"{letter} {axis.labels[at[letter]][:60]}" for letter, axis in axes.items()]
    return prefix_error(f"At {' and '.join(where)}", error)


def work(options: Options, defaults: Mapping[str, Any]) -> float:
    """Return the pixels times UNet calls of all pictures of a grid, each with its own values.

    defaults: the width, height, steps and sampler of the request's model; those of other models
    that an axis names are not known here.
    """
    from .common import sampling_work

    cells = plan_cells(options, parse_axes(options))
    return sum(sampling_work(cell.options, defaults) for cell in cells)


def stream(
    models: Models, options: Options, model_cache: ModelCache | None = None, *, words: bool = False
) -> Events:
    """Draw a grid (A1111's X/Y/Z plot): yield the Steps of all pictures, then one Result.

    The Result has the contact sheet of all pictures, then each picture. The `image` of a Step is
    the picture's number in the order of drawing. model_cache: the models that an axis may choose
    from; None: only `models`. words: whether the Steps carry attention maps of the prompt's words.
    Raises InputError before the first Step for a picture that cannot be drawn.
    """
    from .. import engine
    from ..images import contact_sheet

    began = time.perf_counter()
    options = _fix_seeds(options)
    axes = {
        letter: _resolve_names(axis, model_cache) for letter, axis in parse_axes(options).items()
    }
    cells = plan_cells(options, axes)
    sizes = _cell_sizes(models, cells, axes, model_cache)
    headings = {
        letter: contact_sheet.Heading(axis.label, axis.labels) for letter, axis in axes.items()
    }
    layout = contact_sheet.lay_out(sizes, **headings)
    _check_size(layout)
    results: dict[Place, Result] = {}
    # Draw all pictures of a model before the next one is loaded.
    order = sorted(cells, key=lambda cell: (cell.model or "", cell.vae or ""))
    text, used = "", None
    for number, cell in enumerate(order):
        used = None  # release the model before the next one is loaded
        used = _cell_models(models, cell, model_cache)
        with closing(used.stream(cell.options, words=words)) as events:
            for event in events:
                if isinstance(event, Step):
                    spent = time.perf_counter() - began
                    yield replace(event, image=number, count=len(order), seconds=spent)
        assert isinstance(event, Result)
        results[cell.place] = event
        if cell is cells[0]:
            text = _sheet_text(used, event.options, axes)
    ordered = [results[cell.place] for cell in cells]
    whole = layout.draw({place: result.images[0] for place, result in results.items()})
    whole.info["parameters"] = text
    joined = engine.join_results(ordered, models.resolve(options))
    yield replace(
        joined,
        images=[whole, *joined.images],
        parameters=[text, *joined.parameters],
        seeds=[joined.seeds[0], *joined.seeds],
        sheet=True,
        seconds=time.perf_counter() - began,
        metadata=ordered[0].metadata,
    )


def _sheet_text(models: Models, options: ResolvedOptions, axes: dict[str, Axis]) -> str:
    """Return the parameters text (A1111's metadata) of a grid's contact sheet.

    It is that of the grid's first picture, drawn with `options`, with the axes added as in A1111.
    """
    from ..latents import noise
    from ..metadata.parameters import parameters_text
    from ..prompt import resources

    more = {"Script": "X/Y/Z plot"}
    for axis in axes.values():
        more |= axis.fields
    named = resources.find_resources(models, options)
    return parameters_text(models, options, noise.seeds(options, 0), named, more)


def _fix_seeds(options: Options) -> Options:
    """Return a grid's options in which a missing seed is replaced by a random one.

    All pictures of the grid then share it, unless an axis varies it. The options are `seed` and
    `variation_seed`; a value that the user gave stays.
    """
    seeds = {
        name: secrets.randbelow(MAX_SEED + 1)
        for name in ("seed", "variation_seed")
        if getattr(options, name) is None
    }
    return options.model_copy(update=seeds)


def _resolve_names(axis: Axis, model_cache: ModelCache | None) -> Axis:
    """Return a grid's axis of models or VAEs with the names spelled as this machine lists them.

    Users may write them in another case. Other axes are unchanged. Raises InputError for a name
    that is not there or cannot be used.
    """
    if axis.name not in ("model", "vae"):
        return axis
    if model_cache is None:
        raise InputError(f"On the axis {axis.letter}, no other model can be chosen here.")
    names = _entries(axis.name, model_cache)
    low = {name.casefold(): name for name in names}
    values = []
    for value in axis.values:
        name = value if value in names else low.get(value.casefold())
        if axis.name == "vae" and value == OWN_VAE[0]:
            name = value
        elif name is None:
            there = closest(value[:100], names) or "none"
            raise InputError(
                f"On the axis {axis.letter}, there is no {axis.name} {short_repr(value)} to choose;"
                f" there is {there}."
            )
        elif names[name].reason:
            raise prefix_error(f"On the axis {axis.letter}", InputError(names[name].reason))
        values.append(name)
    return replace(axis, values=tuple(values))


def _entries(kind: str, model_cache: ModelCache) -> dict[str, Any]:
    """Return what a grid's axis `kind` ("model" or "vae") may choose from, by name."""
    return {e.name: e for e in (model_cache.choices() if kind == "model" else model_cache.vaes())}


def _cell_models(models: Models, cell: Cell, model_cache: ModelCache | None) -> Models:
    """Return the model with which to draw one picture of a grid; load it if it is not in memory.

    models: the request's model, which draws the pictures that name no other model or autoencoder.
    model_cache: loads the others; it may be None only if there are none.
    """
    if cell.model is None and cell.vae is None:
        return models
    assert model_cache is not None
    vae = None if cell.vae == OWN_VAE[0] else cell.vae
    return model_cache.get(cell.model or models.name, vae, models.lora_folder)


def _cell_sizes(
    models: Models, cells: list[Cell], axes: dict[str, Axis], model_cache: ModelCache | None
) -> dict[Place, tuple[int, int]]:
    """Return (width, height) in pixels of each picture of a grid, by its (column, row, z value).

    Raises InputError for the first that cannot be drawn. Other models than `models` are not loaded
    for this; only the headers of their files are read.
    """
    sizes: dict[tuple, tuple] = {}
    usual: dict[tuple, dict] = {}
    for cell in cells:
        key = cell.model, cell.vae
        try:
            if key in ((None, None), (models.name, None)):
                options = _check_cell(models, cell.options)
                sizes[cell.place] = options.width, options.height
                continue
            if key not in usual:
                usual[key] = _model_defaults(models, cell, model_cache)
        except InputError as error:
            raise _cell_error(axes, cell.place, error) from None
        size = {"width": cell.options.width, "height": cell.options.height}
        sizes[cell.place] = tuple(size[name] or usual[key][name] for name in size)
    return sizes


def _check_cell(models: Models, options: GenerateOptions) -> ResolvedOptions:
    """Check that a grid's picture can be drawn; return its options with all defaults filled in.

    Raises InputError for what would fail when it is drawn: size, sampler, backends, LoRAs.
    """
    from ..latents import vae
    from ..prompt import resources
    from ..samplers import unsupported

    resolved = models.resolve(options)
    factor = vae.factor(models.vae)
    for name in ("width", "height"):
        if getattr(resolved, name) % factor:
            raise InputError(
                f"this model draws multiples of {factor} pixels; {name} is"
                f" {getattr(resolved, name)}."
            )
    reason = unsupported(resolved.sampler) or unsupported(resolved.schedule)
    if reason:
        raise InputError(reason)
    models.backends.open_session(resolved.attention, resolved.group_norm)
    resources.find_resources(models, resolved)
    return resolved


def _model_defaults(models: Models, cell: Cell, model_cache: ModelCache | None) -> dict[str, Any]:
    from ..loading.autoencoder import with_vae
    from ..loading.defaults import read_defaults
    from ..model_files import manifest

    assert model_cache is not None
    entry = _entries("model", model_cache)[cell.model or models.name]
    if cell.vae is None or cell.vae == OWN_VAE[0]:
        other = None
    else:
        other = _entries("vae", model_cache)[cell.vae].path
    opened = manifest.open(entry.path, hashed=False)
    return read_defaults(with_vae(opened, other), "v_prediction")


def _check_size(layout: Sheet) -> None:
    width, height = layout.width, layout.height
    if width * height > MAX_SHEET or max(width, height) > MAX_SIDE:
        raise InputError(
            f"The sheet would be of {width}x{height} = {width * height / 1e6:.1f} million pixels;"
            f" at most {MAX_SHEET // 10**6} million, and {MAX_SIDE:,} a side, are drawn: ask for"
            " smaller pictures or fewer values."
        )
