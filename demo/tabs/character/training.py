"""Train a LoRA of one character for the page and the web API, with limits for a shared server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.model_cache import ModelCache

from ...server.visitors import MB, DiskQuotaExceeded, Visitors
from ...server.zerogpu import ON_ZERO_GPU
from ...texts import say
from ...ui.failures import hide_internal_errors

if TYPE_CHECKING:
    from pipeline.training.lora.train import Progress, Trained

TRAIN: dict[str, Any] = {"concurrency_id": "train", "concurrency_limit": 1}  # one at a time
MAX_STEPS, MAX_PICTURES = 2000, 50  # other visitors wait meanwhile
PREVIEWS = 4  # pictures that are drawn during a training to show its progress
# Fields of LoraOptions that visitors may fill in: whole numbers and texts.
NUMBERS = ("steps", "rank", "prior_count")
TEXTS = ("name", "prompt", "prior_prompt")
WANTED = {  # by required field: the end of the sentence "There is no FIELD: ..."
    "name": "say what the character's file shall be called, such as zog",
    "prompt": "say how the character is asked for, such as 'zog the striped creature'",
}


def refusal(visitors: Visitors) -> str | None:
    """Return the text key of the sentence that says why nobody can train here; None if they can.

    visitors: the visitors' trainings, with the server's limits.
    """
    if ON_ZERO_GPU:
        return "character_zero_gpu"
    return None if visitors.limits.allow_training else "character_off"


def train(
    model_cache: ModelCache, visitors: Visitors, visitor: str, request: dict[str, Any]
) -> Iterator[Progress | Trained]:
    """Train a LoRA on pictures of one character: yield a Progress for each step, then a Trained.

    The Trained names the two files of the LoRA, which belong to the visitor: others can neither
    name nor continue it. visitors: the visitors' trainings. visitor: the id of this one. request:
    fields of LoraOptions by name, such as "name", "prompt" and "images", and "model" and "vae",
    names of the model cache; None or "" takes the default. Closing the iterator stops the training.
    Raises InputError for what the user can correct, a server without training and a full quota of
    the disk, and Broken for an internal error.
    """
    refused = refusal(visitors)
    if refused:
        raise InputError(say(refused, "en"))
    fields = read_fields(request)
    with hide_internal_errors():
        from pipeline.training.lora import train as lora
        from pipeline.training.lora.options import check_file_name

        check_file_name(fields["name"])
        models = model_cache.get(request.get("model") or None, request.get("vae") or None)
        folders = visitors.folders(visitor, fields["name"])
        options = lora.LoraOptions(
            previews=PREVIEWS,
            run=folders.run,
            out=folders.out,
            keep_run=visitors.limits.shared_training,
            **fields,
        )
        most = lora.disk_bytes(models, options)
        try:
            with (
                visitors.training(visitor, options.name, most),
                closing(lora.train(models, options)) as events,
            ):
                for event in events:
                    yield replace(event, notes=tuple(map(folders.hide, event.notes)))
        except DiskQuotaExceeded as error:
            rank = lora.largest_rank(models, options, error.left)
            raise InputError(
                f"This training takes up to {most / MB:.0f} MB of the disk, and"
                f" {error.left / MB:.0f} MB are left for you: "
                + (f"a rank of {rank} fits." if rank else _when_room(visitors))
            ) from None
        except InputError as error:
            error.args = tuple(map(folders.hide, error.args))
            raise


def _when_room(visitors: Visitors) -> str:
    """Return the end of a sentence that says when there is room for another training."""
    hours = visitors.limits.training_hours
    if hours:
        return f"wait; trainings are deleted when nothing has used them for {hours} hours."
    return "ask the owner of this server for more (--training-disk-mb)."


def read_fields(request: dict[str, Any]) -> dict[str, Any]:
    """Check a request for a LoRA training and return the fields of LoraOptions that it fills in.

    request: a dict with the texts "name", "prompt" and "prior_prompt", the numbers (int or text)
    "steps", "rank" and "prior_count", "images" (paths of files) and "resume" (bool); any may be
    missing or empty. Raises InputError for a missing name, prompt or picture, for text that is no
    whole number, and for more than MAX_STEPS steps or MAX_PICTURES pictures.
    """
    fields: dict[str, Any] = {name: request[name] for name in TEXTS if request.get(name)}
    for name in NUMBERS:
        value = request.get(name)
        if value in (None, ""):
            continue
        try:
            fields[name] = int(str(value))
        except ValueError:
            raise InputError(f"{name} must be a whole number, not {str(value)[:60]!r}.") from None
    images = [str(path) for path in request.get("images") or ()]
    for name, wanted in WANTED.items():
        if not fields.get(name):
            raise InputError(f"There is no {name}: {wanted}.")
    if not images:
        raise InputError("There are no pictures: give a handful that show the character.")
    if len(images) > MAX_PICTURES:
        raise InputError(f"{len(images)} pictures are too many; at most {MAX_PICTURES} are taken.")
    if fields.get("steps", 1) > MAX_STEPS:
        raise InputError(
            f"{fields['steps']} steps are too many for this page, at most {MAX_STEPS}; the"
            " command line takes more."
        )
    return fields | {"images": images, "resume": bool(request.get("resume"))}
