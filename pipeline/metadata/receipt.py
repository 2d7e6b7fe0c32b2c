"""Write and read receipts: how a picture was drawn, with fingerprints of its latents at each step.

A PNG file contains its receipt beside the parameters text, as compressed JSON in a chunk
`glassbox`: task, options, branches, SHA-256 of the weights, versions, device, backends that ran,
fingerprints of the latents, and SHA-256 of the pixels, of the parameters text and of the receipt
itself. verify.py draws the picture again and compares. (A branch continues a drawn picture from one
of its steps, with changed options.)

There is no secret key: whoever changes a picture can also write a receipt with fitting hashes. The
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

VERSION = 1  # of the format
MAX_STEPS = 1_000  # fingerprints in a receipt: 200 steps, two passes, and those of branches
MAX_BRANCHES = 32
INPUT_PICTURES = ("picture", "mask")  # options that are picture files
PNG = b"\x89PNG\r\n\x1a\n"
# Options that a receipt stores resolved, that is, with defaults filled in. Width, height and
# schedule of tasks other than text to image are stored as they were given, because a second run
# may resolve the resolved ones to other values.
RESOLVED_FIELDS = ("sampler", "steps", "cfg", "seed", "variation_seed")
RESOLVED_FIELDS_OF_GENERATE = ("schedule", "width", "height")  # of text to image

Short = Annotated[str, Field(max_length=200)]
Plain = Annotated[str, Field(max_length=20_000)] | int | float | bool | None
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Receipt(BaseModel):
    """The record in a PNG of how its picture was drawn, to draw it again and compare each step.

    receipt   version of the format
    task      key of the task ("generate")
    options   of the request, without picture files
    image     0-based index of this picture in the request
    words     whether attention maps of words were recorded, which may change the last bits
    inputs    from option ("picture", "mask") to the SHA-256 of the pixels of that file
    branches  how the picture was continued from a step of an earlier one with changed options:
              for each time {"at": step, and the changed options}; empty for most pictures
    model     "name", "hash" and "vae" (name of another autoencoder, or None)
    weights   from network name to the SHA-256 of its files
    ran       device, dtype, threads, backends and so on, by name
    versions  from package name to version
    steps     hash and random projection, as text, of the initial latents, then after each step
    pixels    SHA-256 of the picture's mode, size and pixels
    text      SHA-256 of its A1111 parameters text
    digest    SHA-256 of all other fields
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
        """Fingerprints (hash and random projection) of the latents, to compare them with others.

        The first is that of the initial latents; then one follows for each step. They are parsed
        from the field `steps`, which has them as text.
        """
        return [LatentFingerprint.parse(text) for text in self.steps]

    @property
    def intact(self) -> bool:
        """Whether the receipt is as it was written: its `digest` is that of its other fields.

        It proves nothing against a forger, who can compute a new digest.
        """
        return self.digest == _digest(self.model_dump())

    @property
    def model_label(self) -> str:
        """Name and hash of the model that drew the picture, for messages: "name 0123456789".

        "unnamed" stands for one that is missing.
        """
        return " ".join(str(self.model.get(key) or "unnamed") for key in ("name", "hash"))


def provenance(
    task: str, given: GenerateOptions, resolved: GenerateOptions, image: int, words: bool
) -> dict[str, Any]:
    """Return the fields of a picture's receipt that describe the request for the picture.

    The receipt is the record in a PNG by which the picture can be drawn again. The fields are
    "task", "options", "image", "words", "inputs" (hashes of the input pictures) and "branches"
    (empty). task: key of the task, such as "generate". given, resolved: the request's options
    before and after defaults were filled in. image: 0-based index of the picture in the request.
    words: whether attention maps of words were recorded.
    """
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
    """Return the fields of a receipt that say by which request a branched-off picture was drawn.

    To branch off is to continue another picture from one of its steps with changed options. parent:
    the receipt of that other picture, from which "task", "options", "image", "words" and "inputs"
    are taken. change: {"at": step, and the changed options}, appended to "branches".
    """
    provenance = {
        name: getattr(parent, name) for name in ("task", "options", "image", "words", "inputs")
    }
    return provenance | {"branches": [*parent.branches, dict(change)]}


def write(
    models: Models, result: Result, index: int, provenance: Mapping[str, Any], steps: list[str]
) -> str:
    """Return the receipt of picture `index` of `result` as JSON text.

    The receipt is the record in a PNG by which the picture can be drawn again and verified.
    provenance: the fields that describe the request: "task", "options", "image", "words", "inputs"
    and "branches", as `provenance` returns them. steps: for the initial latents, then for those
    after each step, their hash and random projection as one text.
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


# The keys of Result.metadata that go into the receipt's field `ran`.
RAN_FIELDS = ("device", "dtype", "attention", "vae_attention", "group_norm")


def input_digests(options: GenerateOptions) -> dict[str, str]:
    """Return the SHA-256 of the pixels of a request's input files, by option ("picture", "mask").

    Options that are unset or that the task does not have are left out.
    """
    given = {name: getattr(options, name, None) for name in INPUT_PICTURES}
    images = {name: getattr(value, "image", value) for name, value in given.items() if value}
    return {name: pixels_digest(image) for name, image in images.items()}


def pixels_digest(image: Image.Image) -> str:
    """Return the SHA-256 (64 hex digits) of a picture's mode, size and pixels."""
    head = f"{image.mode} {image.width}x{image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def text_digest(text: str) -> str:
    """Return the SHA-256 (64 hex digits) of A1111's parameters text, without control characters."""
    return hashlib.sha256(infotext.clean_text(text).encode()).hexdigest()


def to_json(fields: dict) -> str:
    """Return the JSON of a picture's receipt: `fields` and the "digest" computed from them.

    fields: those of the class Receipt, without "digest".
    """
    return json.dumps(fields | {"digest": _digest(fields)}, separators=(",", ":"))


def _digest(fields: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in fields.items() if key != "digest"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str, where: str = "The picture") -> Receipt:
    """Parse and validate the JSON of a receipt, the record in a PNG of how its picture was drawn.

    where: the picture's name in error messages. Raises InputError for a receipt that is damaged or
    of a newer version. Only types and limits are checked, not whether it tells the truth.
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
    """Return the receipt in a PNG file: the record of how its picture was drawn.

    Raises InputError where the file cannot be read, has no receipt or a damaged one, or is no PNG.
    """
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
    """Return the receipt (how it was drawn) of a picture in memory, from its `info["receipt"]`.

    None where it has none, or a damaged one.
    """
    try:
        return parse(image.info["receipt"])
    except (KeyError, InputError):
        return None
