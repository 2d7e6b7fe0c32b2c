"""Save recordings, a picture and its branches, as one safetensors file, and open it again.

The file contains only tensors and JSON, so nothing is unpickled. A branch stores only its own model
calls; those before its step are stored with its parent. As a file may come from anyone, every field
is checked before it is used.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..disk import write_file
from ..errors import InputError
from ..images.gate import GATE
from ..images.open import MAX_MEMORY
from ..metadata.save import KEYWORD
from ..options import MAX_SEED
from ..samplers import SAMPLERS
from ..version import __version__

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..latents.initial_state import InitialState
    from ..options import ResolvedOptions
    from .recording import ModelCall, Recording

# What wrong contents of a file raise where they are parsed.
FAULTS: tuple[type[Exception], ...] = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OSError,
    OverflowError,
)
FAULTS += (RecursionError, RuntimeError)
VERSION = 1
KIND = "glassbox-tree"
MAX_BYTES = 512 << 20
MAX_RECORDINGS, MAX_CALLS, MAX_WORDS = 64, 1000, 2000
MAX_PICTURE_BYTES = 400_000_000  # of all pictures of a file, four bytes a pixel
MAX_VALUE = 1e6  # of latents and noise levels; they stay below 1e4


def save(recordings: Iterable[Recording], path: str | Path) -> Path:
    """Save a picture and its branches, with all recorded UNet calls, as one safetensors file.

    recordings: each picture before the branches that continue it. Returns the path. Raises
    InputError if the file cannot be written or the picture that a branch continues is missing.
    """
    from safetensors.torch import save_file

    path, saved = Path(path), set()
    tensors: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for recording in recordings:
        if recording.parent is not None and recording.parent not in saved:
            raise InputError("A branch cannot be exported without the picture it is a branch of.")
        saved.add(recording.key)
        rows.append(_row(recording, f"{len(rows)}", tensors))
    header = {"kind": KIND, "version": VERSION, "glassbox": __version__, "recordings": rows}

    def write(part: Path) -> None:
        save_file(tensors, part, {"tree": json.dumps(header, ensure_ascii=False)})
        part.chmod(0o644)

    return write_file(path, write)


def _row(recording: Recording, at: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON object of a recorded picture for its file and add its tensors to `tensors`.

    at: the prefix of the tensors' names, the index of the recording in the file.
    """
    from .recording import plain_options

    start = recording.origin.initial_state
    words: list[list[str]] = []
    calls = []
    for i, m in enumerate(recording.calls[recording.parent_calls :]):
        if list(m.words) not in words:
            words.append(list(m.words))
        calls.append([m.step, m.t, m.sigma, words.index(list(m.words))])
        parts: dict[str, torch.Tensor | None] = {
            "latents": m.latents,
            "clean": m.clean,
            "output": m.answer.output,
        }
        parts |= {"cond": m.answer.cond, "uncond": m.answer.uncond, "maps": m.maps}
        parts |= {f"grid{g}": grid for g, grid in enumerate(m.grids)}
        tensors |= {f"{at}.{i}.{name}": _detached(x) for name, x in parts.items() if x is not None}
    tensors[f"{at}.final"] = _detached(recording.final)
    tensors[f"{at}.png"] = _png(recording)
    complete = not (
        start.x0_hook or start.postprocess or start.inpaint_conditioning is not None or start.tile
    )
    complete = complete and (start.clean is None or start.noise is not None)
    if complete and start.clean is not None and start.noise is not None:
        tensors[f"{at}.begin.clean"] = _detached(start.clean)
        tensors[f"{at}.begin.noise"] = _detached(start.noise)
    return {
        "key": recording.key,
        "parent": recording.parent,
        "model": list(recording.model),
        "options": plain_options(recording.options),
        "seeds": list(recording.origin.seeds),
        "prediction": recording.origin.prediction,
        "begin": start.start_step if complete else None,
        "lineage": list(start.lineage),
        "before": recording.parent_calls,
        "first": recording.sampler_start,
        "reseeds": [list(r) for r in recording.reseeds],
        "words": words,
        "calls": calls,
    }


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone().contiguous()


def _png(recording: Recording) -> torch.Tensor:
    """Return a recorded picture as the bytes of a PNG file, a tensor (bytes,) uint8.

    The PNG has the parameters text and, if there is one, the receipt (JSON with which the picture
    can be drawn again and verified) as text chunks.
    """
    import torch
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", recording.parameters)
    if "receipt" in recording.image.info:
        chunks.add_text(KEYWORD, recording.image.info["receipt"], zip=True)
    data = io.BytesIO()
    recording.image.save(data, "PNG", pnginfo=chunks)
    return torch.frombuffer(bytearray(data.getvalue()), dtype=torch.uint8)


def open_tree(path: str | Path) -> list[Recording]:
    """Open a file that `save` wrote: a picture and its branches, with all recorded UNet calls.

    Returns them, each picture before the branches that continue it. They get new keys, so that a
    file cannot replace a recording that is in memory. Raises InputError if the file is of another
    kind, damaged, or of another version.
    """
    path = Path(path)
    try:
        size = min(path.stat().st_size, MAX_BYTES)
    except (OSError, ValueError):
        size = 0  # _read says why
    with GATE.reserve(2 * size + MAX_MEMORY):
        return _parse(path, *_read(path))


def _parse(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> list[Recording]:
    """Build the Recordings of a file from its header and {name: tensor}; check them as a whole.

    path: only named in errors. Raises InputError for contents that no export has.
    """
    from .recording import new_key

    rows = header.get("recordings")
    try:
        if not isinstance(rows, list) or not 0 < len(rows) <= MAX_RECORDINGS:
            raise ValueError("it has no recordings, or too many")
        found: dict[str, Recording] = {}
        keys: dict[str, str] = {}
        nbytes = 0
        for number, row in enumerate(rows):
            if str(row["key"]) in keys:
                raise ValueError("two of its pictures have the same key")
            keys[str(row["key"])] = new_key()
            made = _parse_recording(row, str(number), tensors, keys, found)
            nbytes += made.image.width * made.image.height * 4
            if nbytes > MAX_PICTURE_BYTES:
                raise ValueError("its pictures are too large")
            _check_whole(made, None if made.parent is None else found[made.parent])
            found[made.key] = made
        return list(found.values())
    except InputError as error:
        raise InputError(f"{path.name} is damaged: {error}") from None
    except FAULTS as error:
        raise InputError(f"{path.name} is damaged: {str(error)[:120]}.") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a safetensors file of recordings; return its JSON header and {name: tensor}.

    Raises InputError if the file is too large, cannot be read, or is of another kind or version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ..model_files.safetensors_header import read_header

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path.name} is larger than {MAX_BYTES >> 20} MB.")
        metadata = read_header(path).metadata
        header = json.loads(metadata.get("tree") or "{}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        header = {}
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise InputError(f"{path.name} is no tree of pictures that this program exported.")
    if header.get("version") != VERSION:
        raise InputError(
            f"{path.name} is of version {str(header.get('version'))[:20]}, this program reads "
            f"{VERSION}; open it with a newer one."
        )
    try:
        return header, load(data)
    except SafetensorError as error:
        raise InputError(f"{path.name} is damaged: {str(error)[:120]}.") from None


def _parse_recording(
    row: dict[str, Any],
    at: str,
    tensors: dict[str, torch.Tensor],
    keys: dict[str, str],
    found: dict[str, Recording],
) -> Recording:
    """Build the Recording of one picture from its part of a file; check every field.

    row      the JSON object of the recording
    at       prefix of its tensors' names
    tensors  all tensors of the file
    keys     {key in the file: new key} of this recording and of those before it
    found    {new key: Recording} of those before it

    Raises ValueError, KeyError, TypeError and the like for wrong contents.
    """
    import torch

    from ..events import RequestOrigin
    from ..latents.initial_state import InitialState
    from ..options import GenerateOptions
    from ..samplers import Answer
    from .recording import ModelCall, Recording

    options = GenerateOptions(**row["options"])
    needed = ("sampler", "schedule", "steps", "cfg", "seed", "width", "height")
    if any(getattr(options, name) is None for name in needed):
        raise ValueError("options are missing")
    final = tensors[f"{at}.final"]
    if final.ndim != 4 or len(final) != 1 or final.dtype != torch.float32:
        raise ValueError("its latents are of another shape")

    def latents(name: str, needed: bool = True) -> Any:
        x = tensors.get(f"{at}.{name}")
        if x is None and not needed:
            return None
        if x is None or x.shape != final.shape or x.dtype != torch.float32:
            raise ValueError(f"{name} is missing or of another shape")
        if not torch.isfinite(x).all() or x.abs().max() > MAX_VALUE:
            raise ValueError(f"{name} holds numbers that are not finite or too large")
        return x

    words = [tuple(str(w)[:200] for w in line[:MAX_WORDS]) for line in row["words"]]
    if not 0 < len(row["calls"]) <= MAX_CALLS:
        raise ValueError("it has no calls, or too many")
    parent = None if row["parent"] is None else found[keys[row["parent"]]]
    calls = [] if parent is None else list(parent.calls[: _natural(row["before"])])
    parent_calls = len(calls)
    for i, (step, t, sigma, line) in enumerate(row["calls"]):
        if not (math.isfinite(sigma) and 0 < sigma <= MAX_VALUE):
            raise ValueError("a noise level is not a number above 0")
        if not (math.isfinite(t) and 0 <= t <= MAX_VALUE):
            raise ValueError("a timestep is not a number from 0 on")
        maps = [_checked_maps(tensors.get(f"{at}.{i}.maps"), words[line])]
        while f"{at}.{i}.grid{len(maps) - 1}" in tensors:
            maps.append(_checked_maps(tensors[f"{at}.{i}.grid{len(maps) - 1}"], words[line]))
        answer = Answer(
            latents(f"{i}.output"), latents(f"{i}.cond", False), latents(f"{i}.uncond", False)
        )
        x_and_clean = latents(f"{i}.latents"), latents(f"{i}.clean")
        levels = _natural(step), float(t), float(sigma)
        grids = tuple(grid for grid in maps[1:] if grid is not None)
        calls.append(ModelCall(*levels, *x_and_clean, answer, words[line], maps[0], grids))
    if any(a.step > b.step for a, b in pairwise(calls)):
        raise ValueError("its steps are out of order")
    start = None
    lineage = tuple(dict(x) for x in row["lineage"])
    if row["begin"] is not None:
        clean, noise = latents("begin.clean", False), latents("begin.noise", False)
        start = InitialState(clean, _natural(row["begin"]), noise=noise, lineage=lineage)
    picture = _parse_picture(tensors[f"{at}.png"])
    first, second = row["seeds"]
    origin = RequestOrigin(
        cast("ResolvedOptions", options),
        start if start is not None else _unknown_start(lineage),
        (_natural(first), None if second is None else _natural(second)),
        {"epsilon": "epsilon", "v_prediction": "v_prediction"}[row["prediction"]],
    )
    return Recording(
        keys[row["key"]],
        _parse_model(row["model"]),
        origin,
        tuple(calls),
        latents("final"),
        picture,
        parent_calls,
        _natural(row["first"]),
        tuple((_natural(a), _natural(b)) for a, b in row["reseeds"]),
        None if parent is None else parent.key,
    )


def _parse_picture(tensor: torch.Tensor) -> Image.Image:
    """Return the picture in the bytes of a PNG file, a tensor (bytes,) uint8, with its texts."""
    from PIL import Image

    from ..images.open import decode

    data = tensor.numpy().tobytes()
    if not data.startswith(b"\x89PNG"):
        raise ValueError("its picture is no PNG")
    picture = decode(data, "Its picture").image
    texts = Image.open(io.BytesIO(data), formats=("PNG",)).info
    picture.info["parameters"] = str(texts.get("parameters", ""))
    if KEYWORD in texts:
        picture.info["receipt"] = str(texts[KEYWORD])
    return picture


def _check_whole(recording: Recording, parent: Recording | None) -> None:
    """Check the fields of a recording from a file against each other and against its parent.

    After that, whatever can be done with a recording that was made here can be done with this one:
    show each call, its frames and maps, continue it from each step, draw it again, export it.
    parent: the recording that it continues; None for no branch. Raises ValueError and InputError.
    """
    options, calls, start = recording.options, recording.calls, recording.origin.initial_state
    height, width = recording.final.shape[2:]
    factor = options.width // max(1, width)
    if not factor or (width * factor, height * factor) != (options.width, options.height):
        raise ValueError("its latents do not have the size that its options say")
    known = start.start_step >= 0  # how it began
    if known and recording.image.size != (options.width, options.height):
        raise ValueError("its picture does not have the size that its options say")
    for seed in (*recording.origin.seeds, *(seed for _, seed in recording.reseeds)):
        if seed is not None and seed > MAX_SEED:
            raise ValueError("a seed is too large")
    if (recording.origin.seeds[1] is None) != (not options.variation_strength):
        raise ValueError("its seeds do not suit its options")
    steps = [call.step for call in calls]
    if steps[0] != 0 or any(b - a not in (0, 1) for a, b in pairwise(steps)):
        raise ValueError("its steps are out of order")
    if not recording.sampler_start <= steps[-1] or not len(calls) > recording.parent_calls:
        raise ValueError("it has too few steps")
    first = start.start_step if known and start.clean is not None else 0
    if known and (first >= options.steps or (start.start_step and start.clean is None)):
        raise ValueError("it begins at a step that it does not have")
    if known and start.clean is not None and start.noise is None:
        raise ValueError("the noise that it began from is missing")
    own = steps[-1] + 1 - recording.sampler_start  # steps of its sampler
    if own > options.steps or (known and own != options.steps - first):
        raise ValueError("its number of steps is not what its options say")
    most = max(2, SAMPLERS[options.sampler].calls)
    for step in range(recording.sampler_start, steps[-1] + 1):
        if steps.count(step) > most and options.sampler != "restart":
            raise ValueError("a step has too many calls")
    _check_maps(calls)
    _check_branch(recording, parent)


def _check_maps(calls: Sequence[ModelCall]) -> None:
    """Raise ValueError where calls with the same words have maps of different sizes."""
    shapes: dict[tuple[str, ...], Any] = {}
    for call in calls:
        if call.maps is None and call.grids:
            raise ValueError("word maps are missing")
        maps = [m for m in (call.maps, *call.grids) if m is not None]
        if not all(m.shape[1] and m.shape[2] and m.isfinite().all() for m in maps):
            raise ValueError("word maps are empty or hold numbers that are not finite")
        found = [tuple(m.shape) for m in maps]
        if shapes.setdefault(call.words, found) != found:
            raise ValueError("word maps differ in size from call to call")


def _check_branch(recording: Recording, parent: Recording | None) -> None:
    """Check a branch against the recording that it continues, and that all of it can be redrawn.

    The options of a branch, its lineage, the steps that it shares and the seeds of its noise follow
    from its parent and from its change. parent: None for a recording that is no branch.
    """
    from .branch import resolve_changes
    from .recording import plain_options

    lineage = recording.origin.initial_state.lineage
    if parent is None:
        if lineage or recording.parent_calls or recording.sampler_start or recording.reseeds:
            raise ValueError("it is a branch, and the picture that it continues is missing")
        return
    earlier = parent.origin.initial_state.lineage or (plain_options(parent.options),)
    if len(lineage) != len(earlier) + 1 or [dict(x) for x in lineage[:-1]] != list(earlier):
        raise ValueError("a branch does not tell the same story as the picture that it continues")
    change = dict(lineage[-1])
    at = _natural(change.pop("at"))
    options, noise_seed = resolve_changes(parent, change)
    if options.model_dump() != recording.options.model_dump():
        raise ValueError("a branch has other options than its changes make")
    if (recording.model, recording.origin.prediction) != (parent.model, parent.origin.prediction):
        raise ValueError("a branch is of another model than the picture that it continues")
    if recording.origin.seeds != parent.origin.seeds:
        raise ValueError("a branch has other seeds than the picture that it continues")
    shared = sum(call.step < at for call in parent.calls)
    new = (options.sampler, options.schedule) != (parent.options.sampler, parent.options.schedule)
    if (
        not parent.sampler_start <= at < parent.steps
        or recording.parent_calls != shared
        or recording.calls[shared].step != at
        or recording.sampler_start != (at if new else parent.sampler_start)
    ):
        raise ValueError("a branch does not begin at the step that it says")
    kept = () if new else tuple(r for r in parent.reseeds if r[0] <= at)
    if recording.reseeds != kept + (() if noise_seed is None else ((at, noise_seed),)):
        raise ValueError("a branch has other seeds of its noise than its changes make")
    for name, value in change.items():  # they are shown as they stand here
        if value != (noise_seed if name == "noise_seed" else getattr(options, name)):
            raise ValueError("a branch writes its changes in another way than this program")


def _parse_model(row: Any) -> tuple[str, str, str | None]:
    name, digest, vae = row
    return str(name)[:200], str(digest)[:64], None if vae is None else str(vae)[:200]


def _unknown_start(lineage: tuple[dict[str, Any], ...]) -> InitialState:
    """Return an initial state for a recorded picture whose own initial state is not in the file.

    This is so, for example, after image to image, which began from another picture. start_step is
    -1, which marks that the recording can be shown, but not continued. lineage: for a branch, the
    options of the first picture, then {"at": step, changed options} of each branch that led to this
    one.
    """
    from ..latents.initial_state import InitialState

    return InitialState(start_step=-1, lineage=lineage)


def _natural(value: Any) -> int:
    """Check a number from a file: return `value` if it is an int from 0 to 2**40 - 1.

    Raises ValueError for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value


def _checked_maps(tensor: torch.Tensor | None, words: tuple[str, ...]) -> torch.Tensor | None:
    import torch

    if tensor is None:
        return None
    if tensor.ndim != 3 or len(tensor) != len(words) or tensor.dtype != torch.float16:
        raise ValueError("word maps are of another shape")
    return tensor
