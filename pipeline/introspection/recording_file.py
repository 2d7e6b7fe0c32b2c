"""A tree of recordings as one safetensors file: nothing but tensors and JSON, nothing unpickled.

Each recording's own calls are there, those before a branch stand with its parent. What a file says
is believed only after it was held against what a recording can be.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..metadata.save import KEYWORD
from ..version import __version__

if TYPE_CHECKING:
    from .recording import Recording

VERSION = 1
KIND = "glassbox-tree"
MAX_BYTES = 512 << 20
MAX_RECORDINGS, MAX_CALLS, MAX_WORDS = 64, 1000, 2000


def save(recordings: Iterable[Recording], path: str | Path) -> Path:
    """Write a tree to `path`, parents before their branches. InputError where it cannot be written,
    or a parent is missing."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path, there = Path(path), {}
    tensors: dict[str, Any] = {}
    rows = []
    for recording in recordings:
        if recording.parent is not None and recording.parent not in there:
            raise InputError("A branch cannot be exported without the picture it is a branch of.")
        there[recording.key] = recording
        rows.append(_row(recording, f"{len(rows)}", tensors))
    header = {"kind": KIND, "version": VERSION, "glassbox": __version__, "recordings": rows}
    try:
        save_file(tensors, path, {"tree": json.dumps(header, ensure_ascii=False)})
        path.chmod(0o644)
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot write {path.name}: {str(error)[:200]}.") from None
    return path


def _row(recording: Recording, at: str, tensors: dict[str, Any]) -> dict[str, Any]:
    from .recording import described

    start = recording.origin.start
    words: list[list[str]] = []
    calls = []
    for i, m in enumerate(recording.moments[recording.before :]):
        if list(m.words) not in words:
            words.append(list(m.words))
        calls.append([m.step, m.t, m.sigma, words.index(list(m.words))])
        parts = {"latents": m.latents, "clean": m.clean, "output": m.answer.output}
        parts |= {"cond": m.answer.cond, "uncond": m.answer.uncond, "maps": m.maps}
        parts |= {f"grid{g}": grid for g, grid in enumerate(m.grids)}
        tensors |= {f"{at}.{i}.{name}": _own(x) for name, x in parts.items() if x is not None}
    tensors[f"{at}.final"] = _own(recording.final)
    tensors[f"{at}.png"] = _png(recording)
    whole = not (start.steer or start.finish or start.beside is not None or start.tile)
    whole = whole and (start.clean is None or start.noise is not None)
    if whole and start.clean is not None:
        tensors[f"{at}.begin.clean"] = _own(start.clean)
        tensors[f"{at}.begin.noise"] = _own(start.noise)
    return {
        "key": recording.key,
        "parent": recording.parent,
        "model": list(recording.model),
        "options": described(recording.options),
        "seeds": list(recording.origin.seeds),
        "prediction": recording.origin.prediction,
        "begin": start.begin if whole else None,
        "lineage": list(start.lineage),
        "before": recording.before,
        "first": recording.first,
        "reseeds": [list(r) for r in recording.reseeds],
        "words": words,
        "calls": calls,
    }


def _own(tensor):
    return tensor.detach().cpu().clone().contiguous()


def _png(recording: Recording):
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
    """The recordings of a file, parents first; InputError in one sentence where it is no such file,
    is damaged, or is from a newer version. Their keys are new, so that no file can take another's
    place on a server; branches of them can be made where the model is the same."""
    from .recording import _key

    path = Path(path)
    header, tensors = _read(path)
    rows = header.get("recordings")
    try:
        if not isinstance(rows, list) or not 0 < len(rows) <= MAX_RECORDINGS:
            raise ValueError("it has no recordings, or too many")
        found: dict[str, Recording] = {}
        keys: dict[str, str] = {}
        for number, row in enumerate(rows):
            keys[str(row["key"])] = _key()
            made = _recording(row, str(number), tensors, keys, found)
            found[made.key] = made
        return list(found.values())
    except InputError as error:
        raise InputError(f"{path.name} is damaged: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise InputError(f"{path.name} is damaged: {str(error)[:120]}.") from None


def _read(path: Path) -> tuple[dict, dict]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ..model_files.safetensors_header import read_header

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path.name} is larger than {MAX_BYTES >> 20} MB.")
        said = read_header(path).metadata
        header = json.loads(said.get("tree") or "{}")
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


def _recording(row: dict, at: str, tensors: dict, keys: dict, found: dict) -> Recording:
    import torch
    from PIL import Image

    from ..events import RequestOrigin
    from ..latents.initial_state import Start
    from ..options import GenerateOptions
    from ..samplers import Answer
    from .recording import Moment, Recording

    options = GenerateOptions(**row["options"])
    if None in (options.sampler, options.schedule, options.steps, options.cfg, options.seed):
        raise ValueError("options are missing")
    final = tensors[f"{at}.final"]
    if final.ndim != 4 or len(final) != 1 or final.dtype != torch.float32:
        raise ValueError("its latents are of another shape")

    def latents(name: str, needed: bool = True):
        x = tensors.get(f"{at}.{name}")
        if x is None and not needed:
            return None
        if x is None or x.shape != final.shape or x.dtype != torch.float32:
            raise ValueError(f"{name} is missing or of another shape")
        if not torch.isfinite(x).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        return x

    words = [tuple(str(w)[:200] for w in line[:MAX_WORDS]) for line in row["words"]]
    if not 0 < len(row["calls"]) <= MAX_CALLS:
        raise ValueError("it has no calls, or too many")
    parent = None if row["parent"] is None else found[keys[row["parent"]]]
    moments = [] if parent is None else list(parent.moments[: _whole(row["before"])])
    before = len(moments)
    for i, (step, t, sigma, line) in enumerate(row["calls"]):
        if not (math.isfinite(t) and math.isfinite(sigma) and sigma > 0):
            raise ValueError("a noise level is not a number above 0")
        maps = [_maps(tensors.get(f"{at}.{i}.maps"), words[line])]
        while f"{at}.{i}.grid{len(maps) - 1}" in tensors:
            maps.append(_maps(tensors[f"{at}.{i}.grid{len(maps) - 1}"], words[line]))
        answer = Answer(
            latents(f"{i}.output"), latents(f"{i}.cond", False), latents(f"{i}.uncond", False)
        )
        seen = latents(f"{i}.latents"), latents(f"{i}.clean")
        levels = _whole(step), float(t), float(sigma)
        moments.append(Moment(*levels, *seen, answer, words[line], maps[0], tuple(maps[1:])))
    if any(a.step > b.step for a, b in pairwise(moments)):
        raise ValueError("its steps are out of order")
    start = None
    lineage = tuple(dict(x) for x in row["lineage"])
    if row["begin"] is not None:
        clean, noise = latents("begin.clean", False), latents("begin.noise", False)
        start = Start(clean, _whole(row["begin"]), noise=noise, lineage=lineage)
    data = tensors[f"{at}.png"].numpy().tobytes()
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    if image.width * image.height > 4 * 8192**2:
        raise ValueError("its picture is too large")
    image.load()
    kept = image.convert("RGB")
    kept.info["parameters"] = str(image.info.get("parameters", ""))
    if KEYWORD in image.info:
        kept.info["receipt"] = str(image.info[KEYWORD])
    first, second = row["seeds"]
    origin = RequestOrigin(
        options,
        start if start is not None else _unknown(lineage),
        (_whole(first), None if second is None else _whole(second)),
        {"epsilon": "epsilon", "v_prediction": "v_prediction"}[row["prediction"]],
    )
    return Recording(
        keys[row["key"]],
        _model(row["model"]),
        origin,
        tuple(moments),
        latents("final"),
        kept,
        before,
        _whole(row["first"]),
        tuple((_whole(a), _whole(b)) for a, b in row["reseeds"]),
        None if parent is None else parent.key,
    )


def _model(row: Any) -> tuple[str, str, str | None]:
    name, digest, vae = row
    return str(name)[:200], str(digest)[:64], None if vae is None else str(vae)[:200]


def _unknown(lineage: tuple):
    """The start of a picture that began from another one, which the file does not hold."""
    from ..latents.initial_state import Start

    return Start(begin=-1, lineage=lineage)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value


def _maps(tensor, words: tuple[str, ...]):
    import torch

    if tensor is None:
        return None
    if tensor.ndim != 3 or len(tensor) != len(words) or tensor.dtype != torch.float16:
        raise ValueError("word maps are of another shape")
    return tensor
