"""The training of a character, as the page and the web API ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.model_cache import ModelCache

from ...server.zerogpu import ON_ZERO_GPU
from ...ui.failures import hide_internal_errors

if TYPE_CHECKING:
    from pipeline.training.lora.train import Progress, Trained

TRAIN: dict[str, Any] = {"concurrency_id": "train", "concurrency_limit": 1}  # one at a time
MAX_STEPS, MAX_PICTURES = 2000, 50  # a server has other visitors, too
PREVIEWS = 4  # drawn during a training
NUMBERS = ("steps", "rank", "prior_count")
TEXTS = ("name", "prompt", "prior_prompt")
WANTED = {
    "name": "say what the character's file shall be called, such as zog",
    "prompt": "say how the character is asked for, such as 'zog the striped creature'",
}


def train(model_cache: ModelCache, given: dict[str, Any]) -> Iterator[Progress | Trained]:
    """Train a LoRA: yield a Progress for each step, then a Trained. Closing it stops the training.

    given: fields of LoraOptions by name, "model" and "vae" as names of the model cache; an empty
    field takes the default. Raises InputError for what the user can correct, else Broken.
    """
    fields = read_fields(given)
    if ON_ZERO_GPU:
        raise InputError(
            "This server has a GPU for seconds at a time only; train on a machine of your own."
        )
    with hide_internal_errors():
        from pipeline.training.lora import train as lora

        models = model_cache.get(given.get("model") or None, given.get("vae") or None)
        events = lora.train(models, lora.LoraOptions(previews=PREVIEWS, **fields))
        try:
            yield from events
        finally:
            events.close()


def read_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of LoraOptions that were filled in; InputError where one is wrong."""
    fields: dict[str, Any] = {name: given[name] for name in TEXTS if given.get(name)}
    for name in NUMBERS:
        value = given.get(name)
        if value in (None, ""):
            continue
        try:
            fields[name] = int(str(value))
        except ValueError:
            raise InputError(f"{name} must be a whole number, not {str(value)[:60]!r}.") from None
    images = [str(path) for path in given.get("images") or ()]
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
    return fields | {"images": images, "resume": bool(given.get("resume"))}
