"""Receipts: how a picture was made, and a fingerprint of its latents after each step.

A PNG carries one beside its parameters text, as compressed JSON in a chunk `glassbox`: task,
options, branches, SHA-256 of the weights, versions, device, backends that ran, fingerprints of the
latents, and SHA-256 of the pixels, of the parameters text and of the receipt itself. verify.py
makes the picture again and compares.

There is no secret key: whoever changes a picture can also write a receipt whose hashes fit. The
fingerprints cannot be invented, because they come out again only if these options, on these
weights, lead to this picture, and anyone who has the model can try. So a receipt proves how a
picture can be made, not who made it, nor when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import InputError
from . import containers, infotext
from .environment import environment, versions
from .fingerprint import LatentFingerprint
from .save import KEYWORD

if TYPE_CHECKING:
    from PIL import Image

    from ..events import Result
    from ..model import Models
    from ..options import GenerateOptions

VERSION = 1
MAX_STEPS = 1_000  # fingerprints of a receipt: 200 steps, two passes, what branches add
MAX_BRANCHES = 32
INPUT_PICTURES = ("picture", "mask")  # options that are files
PNG = b"\x89PNG\r\n\x1a\n"
# Options that a receipt stores resolved. Width, height and schedule of a task with a picture of its
# own are stored as they were given, because resolved they may lead to another picture.
RESOLVED_FIELDS = ("sampler", "steps", "cfg", "seed", "variation_seed")
RESOLVED_FIELDS_OF_GENERATE = ("schedule", "width", "height")  # of text to image

Short = Annotated[str, Field(max_length=200)]
Plain = Annotated[str, Field(max_length=20_000)] | int | float | bool | None
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Receipt(BaseModel):
    """The receipt of one picture.

    options   of the request, without files; image: the index of this picture in the request
    words     whether word maps were recorded, which may change the last bits
    inputs    SHA-256 of the pixels of the input files, by the name of the option
    branches  {"at": step, changed options} of each branch that led to the picture
    model     name, hash and autoencoder; weights: SHA-256 of the files of each part
    ran       device, dtypes, threads and backends; versions: of the packages
    steps     fingerprints: of the initial latents, then after each step
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    receipt: int
    task: Short
    options: Annotated[dict[Short, Plain], Field(max_length=100)]
    image: Annotated[int, Field(ge=0, le=1000)]
    words: bool
    inputs: Annotated[dict[Short, Digest], Field(max_length=len(INPUT_PICTURES))]
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
    def _check_fingerprints(cls, steps: list[str]) -> list[str]:
        for text in steps:
            LatentFingerprint.parse(text)
        return steps

    @property
    def fingerprints(self) -> list[LatentFingerprint]:
        return [LatentFingerprint.parse(text) for text in self.steps]

    @property
    def intact(self) -> bool:
        """Whether its digest fits, so that nobody changed it without writing a new digest."""
        return self.digest == _digest(self.model_dump())

    @property
    def model_label(self) -> str:
        """The model's name and hash."""
        return " ".join(str(self.model.get(key) or "unnamed") for key in ("name", "hash"))


def provenance(
    task: str, given: GenerateOptions, resolved: GenerateOptions, image: int, words: bool
) -> dict[str, Any]:
    """Return the fields of a receipt that say what was asked for."""
    options = given.model_dump(mode="json", exclude={*INPUT_PICTURES, "attention", "group_norm"})
    names = RESOLVED_FIELDS + (RESOLVED_FIELDS_OF_GENERATE if task == "generate" else ())
    options |= {name: getattr(resolved, name) for name in names}
    return {
        "task": task,
        "options": {name: value for name, value in options.items() if value is not None},
        "image": image,
        "words": words,
        "inputs": input_digests(given),
        "branches": [],
    }


def extend_provenance(parent: Receipt, change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parent's provenance with one more branch."""
    provenance = {
        name: getattr(parent, name) for name in ("task", "options", "image", "words", "inputs")
    }
    return provenance | {"branches": [*parent.branches, dict(change)]}


def write(
    models: Models, result: Result, index: int, provenance: Mapping[str, Any], steps: list[str]
) -> str:
    """Return the receipt of picture `index` of a result, as JSON.

    provenance: of `provenance` or `extend_provenance`. steps: its fingerprints as text.
    """
    from ..oom import DECODED_IN_TILES, GUIDANCE_SPLIT

    ran = {k: str(result.metadata[k]) for k in RAN_FIELDS if result.metadata.get(k)}
    short = bool({DECODED_IN_TILES, GUIDANCE_SPLIT} & set(result.warnings))
    fields = {
        "receipt": VERSION,
        **provenance,
        "model": {"name": models.name[:200], "hash": models.hash, "vae": models.vae_name},
        "weights": models.digests,
        "ran": ran | environment(models.device) | {"memory": "short" if short else "enough"},
        "versions": versions(),
        "steps": steps,
        "pixels": pixels_digest(result.images[index]),
        "text": text_digest(result.parameters[index]),
    }
    return to_json(fields)


RAN_FIELDS = ("device", "dtype", "attention", "vae_attention", "group_norm")


def input_digests(options: GenerateOptions) -> dict[str, str]:
    """Return the SHA-256 of the pixels of the options' files, by the names of the options."""
    given = {name: getattr(options, name, None) for name in INPUT_PICTURES}
    images = {name: getattr(value, "image", value) for name, value in given.items() if value}
    return {name: pixels_digest(image) for name, image in images.items()}


def pixels_digest(image: Image.Image) -> str:
    """Return the SHA-256 of a picture's mode, size and pixels."""
    head = f"{image.mode} {image.width}x{image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def text_digest(text: str) -> str:
    """Return the SHA-256 of a parameters text."""
    return hashlib.sha256(infotext.clean_text(text).encode()).hexdigest()


def to_json(fields: dict) -> str:
    """Return the JSON of a receipt's fields with their digest."""
    return json.dumps(fields | {"digest": _digest(fields)}, separators=(",", ":"))


def _digest(fields: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in fields.items() if key != "digest"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str, where: str = "The picture") -> Receipt:
    """Return the receipt of a JSON text.

    where: names the picture in the sentences. Raises InputError in one sentence for a receipt that
    is damaged or of a newer version. Its values are checked by verify.py.
    """
    damaged = f"{where} carries a receipt, but it is damaged"
    try:
        found = json.loads(text, parse_constant=_reject_constant)
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


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def read(path: str | Path) -> Receipt:
    """Return the receipt of a PNG file; InputError in one sentence where none can be read."""
    found = containers.read_texts(path, KEYWORD)
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


def from_image(image: Image.Image) -> Receipt | None:
    """Return the receipt of a picture in memory; None where it has none that can be read."""
    try:
        return parse(image.info["receipt"])
    except (KeyError, InputError):
        return None
