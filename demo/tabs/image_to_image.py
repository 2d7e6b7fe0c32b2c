"""A picture and a prompt: the picture drawn anew."""

from __future__ import annotations

from pipeline.tasks.image_to_image import FITS

from ..ui.fields import Task, choice, picture, share


def inputs(page, key: str) -> dict:
    return {
        "picture": picture(page, key),
        "strength": share(page, key, "strength"),
        "fit": choice(page, key, "fit", FITS),
    }


TASK = Task(inputs, own_size=True)
