"""Receipts: what a picture was made of, and what its latents were after each step.

A PNG carries one beside its parameters text, compressed JSON in a chunk `glassbox`: task, options,
branches, SHA-256 of the weights, versions, device, backends that ran, a mark of the latents after
each step, and SHA-256 of the pixels, of the parameters text and of the receipt itself. verify.py
makes the picture again and compares.

There is no secret key. Who changes a picture can write a receipt that fits, and the hashes alone
prove nothing against that. What cannot be made up are the marks: they come out again only if these
options, on these weights, really lead to this picture, and anyone who has the model can try. So a
receipt proves how a picture can be made, not who made it, nor when.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import InputError
from ..version import __version__
from . import containers, infotext
from .save import KEYWORD

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from ..events import Result, Step
    from ..options import GenerateOptions

VERSION = 1
SKETCH = 32  # numbers that a mark has of its latents: an RMS is estimated to some 12 %
MAX_STEPS = 1_000  # marks of a receipt: 200 steps, two passes, what branches add
MAX_BRANCHES = 32
PICTURES = ("picture", "mask")  # options that are files
PNG = b"\x89PNG\r\n\x1a\n"
# Options whose resolved value gives the same picture when it is asked for in so many words. Of a
# task with a picture of its own width, height and schedule may not: they stay as they were asked.
SETTLED = ("sampler", "steps", "cfg", "seed", "variation_seed")
SETTLED_ALONE = ("schedule", "width", "height")  # of text to image

Short = Annotated[str, Field(max_length=200)]
Plain = Annotated[str, Field(max_length=20_000)] | int | float | bool | None
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Mark(NamedTuple):
    """What is kept of latents. digest: first 16 hex digits of the SHA-256 of their float32 bytes,
    little-endian; sketch (32,), float32: see `mark`."""

    digest: str
    sketch: np.ndarray

    def apart(self, other: Mark) -> float:
        """The root mean square of the latents' difference, estimated."""
        return float(((self.sketch - other.sketch) ** 2).sum() ** 0.5)

    def __str__(self) -> str:
        return f"{self.digest}:{base64.b64encode(self.sketch.astype('<f4').tobytes()).decode()}"

    @classmethod
    def read(cls, text: str) -> Mark:
        """ValueError for what is no mark."""
        import numpy as np

        digest, _, code = text.partition(":")
        try:
            sketch = np.frombuffer(base64.b64decode(code, validate=True), "<f4")
        except binascii.Error:
            raise ValueError("a mark's sketch is no base64") from None
        if len(digest) != 16 or set(digest) - set("0123456789abcdef"):
            raise ValueError("a mark has no hash")
        if sketch.shape != (SKETCH,) or not np.isfinite(sketch).all():
            raise ValueError(f"a mark's sketch is not of {SKETCH} numbers")
        return cls(digest, sketch.astype(np.float64))


def mark(latents: torch.Tensor) -> Mark:
    """Of latents (1, C, h, w) their hash and a sketch: each number, its sign flipped or not, is
    added to one of 32 sums. The squared difference of two sketches is expected to be that of the
    latents, whatever these are (Charikar, Chen, Farach-Colton, ICALP 2002); divided by sqrt(n) it
    is their mean square."""
    import numpy as np
    import torch

    numbers = latents.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").ravel()
    places, signs = _places(numbers.size)
    sums = np.bincount(places, weights=numbers * signs, minlength=SKETCH)
    sketch = (sums / numbers.size**0.5).astype(np.float32).astype(np.float64)
    return Mark(hashlib.sha256(numbers.tobytes()).hexdigest()[:16], sketch)


@lru_cache(maxsize=4)
def _places(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which sum each of `count` numbers goes to, and its sign: bits of splitmix64 of its place, so
    that they are the same on every machine and in every version of NumPy."""
    import numpy as np

    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    places = (z % np.uint64(SKETCH)).astype(np.int64)
    return places, np.where(z >> np.uint64(63), -1, 1).astype(np.float32)


class Receipt(BaseModel):
    """The receipt of one picture.

    options   of the request, as far as they are no files; image: which of its pictures this is
    words     whether it was seen where words went, which may change the last bits
    inputs    SHA-256 of the pixels of the files that it began from, by the name of the option
    branches  where it left the way of the picture that the options make, and what was changed
    model     what drew it: name, hash, autoencoder; weights: SHA-256 of the files of each part
    ran       device, types, threads and backends; versions: of what computed it
    steps     marks: before the first step, and after each
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    receipt: int
    task: Short
    options: Annotated[dict[Short, Plain], Field(max_length=100)]
    image: Annotated[int, Field(ge=0, le=1000)]
    words: bool
    inputs: Annotated[dict[Short, Digest], Field(max_length=len(PICTURES))]
    branches: Annotated[list[dict[Short, Plain]], Field(max_length=MAX_BRANCHES)]
    model: Annotated[dict[Short, Short | None], Field(max_length=10)]
    weights: Annotated[dict[Short, Digest], Field(max_length=10)]
    ran: Annotated[dict[Short, Short], Field(max_length=20)]
    versions: Annotated[dict[Short, Short], Field(max_length=20)]
    steps: Annotated[list[Short], Field(max_length=MAX_STEPS)]
    pixels: Digest
    text: Digest
    digest: Digest

    @field_validator("steps")
    @classmethod
    def _marks(cls, steps: list[str]) -> list[str]:
        for text in steps:
            Mark.read(text)
        return steps

    @property
    def marks(self) -> list[Mark]:
        return [Mark.read(text) for text in self.steps]

    @property
    def whole(self) -> bool:
        """Whether it is as it was written, or written by one who knows how."""
        return self.digest == _digest(self.model_dump())

    @property
    def called(self) -> str:
        """The model's name and hash."""
        return " ".join(str(self.model.get(key) or "unnamed") for key in ("name", "hash"))


def signed(
    models: Any,
    events: Iterator[Step | Result],
    task: str,
    asked: GenerateOptions,
    *,
    parent: Receipt | None = None,
    at: int = 0,
    change: Mapping[str, Any] | None = None,
) -> Iterator[Step | Result]:
    """The events of a task, passed on; each picture of the Result is given its receipt, in
    `info["receipt"]`. Closing the iterator closes the events.

    Of a branch: the receipt of its parent, how many of the parent's marks are before it, and what
    was changed.
    """
    ways: dict[int, dict[int, Mark]] = {}
    words = False
    try:
        for event in events:
            if hasattr(event, "images"):
                for i, image in enumerate(event.images):
                    marks = [*ways.get(i, {}).values(), *map(mark, event.latents[i : i + 1])]
                    steps = [str(m) for m in marks]
                    if parent is None:
                        way = _way(task, asked, event.options, i, words)
                    else:
                        way = _onward(parent, change or {})
                        steps = parent.steps[:at] + steps
                    image.info["receipt"] = written(_about(models, event, i, image, way, steps))
            else:
                way = ways.setdefault(event.image, {})
                if event.index not in way:  # of several calls in a step the first
                    way[event.index] = mark(event.latents)
                words = words or event.maps is not None
            yield event
    finally:
        events.close()


def _way(task: str, asked: GenerateOptions, settled: Any, image: int, words: bool) -> dict:
    """What the picture is made of."""
    options = asked.model_dump(mode="json", exclude={*PICTURES, "attention", "group_norm"})
    names = SETTLED + (SETTLED_ALONE if task == "generate" else ())
    options |= {name: getattr(settled, name) for name in names}
    return {
        "task": task,
        "options": {name: value for name, value in options.items() if value is not None},
        "image": image,
        "words": words,
        "inputs": inputs(asked),
        "branches": [],
    }


def _onward(parent: Receipt, change: Mapping[str, Any]) -> dict:
    way = {name: getattr(parent, name) for name in ("task", "options", "image", "words", "inputs")}
    return way | {"branches": [*parent.branches, dict(change)]}


def _about(models, result: Result, i: int, image: Image.Image, way: dict, steps: list) -> dict:
    """All of a receipt but its digest."""
    from ..oom import DECODED_IN_TILES, GUIDANCE_SPLIT

    ran = {k: str(result.metadata[k]) for k in RAN if result.metadata.get(k)}
    short = bool({DECODED_IN_TILES, GUIDANCE_SPLIT} & set(result.warnings))
    return {
        "receipt": VERSION,
        **way,
        "model": {"name": models.name[:200], "hash": models.hash, "vae": models.vae_name},
        "weights": models.digests,
        "ran": ran | machine(models.device) | {"memory": "short" if short else "enough"},
        "versions": versions(),
        "steps": steps,
        "pixels": pixels(image),
        "text": text_digest(result.parameters[i]),
    }


RAN = ("device", "dtype", "attention", "vae_attention", "group_norm")


def machine(device: torch.device) -> dict[str, str]:
    """What of the machine may change the last bits: the device's name, instructions, threads."""
    import torch

    if device.type == "cuda":
        return {"device_name": torch.cuda.get_device_name(device)}
    return {
        "device_name": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2] for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return (names[0] if names else platform.processor() or platform.machine()).strip()[:100]


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of everything that may change the last bits."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"glassbox": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "triton", "xformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"platform": f"{platform.system()} {platform.machine()}"}


def inputs(asked: GenerateOptions) -> dict[str, str]:
    """SHA-256 of the pixels of the files that the options hold, by their names."""
    given = {name: getattr(asked, name, None) for name in PICTURES}
    images = {name: getattr(value, "image", value) for name, value in given.items() if value}
    return {name: pixels(image) for name, image in images.items()}


def pixels(image: Image.Image) -> str:
    """SHA-256 of a picture's mode, size and pixels."""
    head = f"{image.mode} {image.width}x{image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a parameters text."""
    return hashlib.sha256(infotext.clean(text).encode()).hexdigest()


def written(about: dict) -> str:
    """The receipt's JSON, with its digest."""
    return json.dumps(about | {"digest": _digest(about)}, separators=(",", ":"))


def _digest(about: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in about.items() if key != "digest"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str, where: str = "The picture") -> Receipt:
    """A receipt's JSON; InputError in one sentence for one that is damaged or of a newer version.

    Nothing in it is believed: what it asks for passes the options of its task, see verify.py.
    """
    damaged = f"{where} carries a receipt, but it is damaged"
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise InputError(f"{damaged}: it is no JSON.") from None
    number = found.get("receipt") if isinstance(found, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"{damaged}: it does not say its version.")
    if number > VERSION:
        raise InputError(
            f"The receipt of {where} was written by a newer version of Glassbox: it is of version"
            f" {str(number)[:20]}, and {VERSION} is the newest that is known here."
        )
    try:
        return Receipt(**found)
    except (ValidationError, TypeError) as error:
        at = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ()
        part = str(at[0])[:40] if at else "its form"
        raise InputError(f"{damaged}: {part} is not as it should be.") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def read(path: str | Path) -> Receipt:
    """The receipt of a PNG file; InputError in one sentence where none can be read."""
    found = containers.texts(path, KEYWORD)
    name = Path(path).name
    if KEYWORD in found:
        return parse(found[KEYWORD], name)
    with open(path, "rb") as file:
        if file.read(8) != PNG:
            raise InputError(
                f"{name} is a JPEG or WebP picture, which has no receipt: only PNG files carry one."
            )
    if "parameters" not in found:
        raise InputError(f"{name} carries no receipt, and no parameters text either.")
    if infotext.parse(infotext.read(path)).get("Script") == "X/Y/Z plot":
        raise InputError(
            f"{name} is the sheet of a grid, which has no receipt: verify its pictures, each of"
            " which carries its own."
        )
    raise InputError(
        f"{name} carries a parameters text and no receipt: another program made it, or the receipt"
        " was taken away."
    )


def of(image: Image.Image) -> Receipt | None:
    """The receipt of a picture in memory; None where it has none that can be read."""
    try:
        return parse(image.info["receipt"])
    except (KeyError, InputError):
        return None
