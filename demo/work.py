"""From the page's fields to pictures: what the page and the web API share.

One painter a server: its lock holds the device until a request has really stopped, because Gradio
gives the place in the queue free as soon as it is cancelled, while the step still runs.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.options import GenerateOptions

FIELDS = tuple(GenerateOptions.model_fields)  # the order of every listener's inputs
RAN = ("device", "dtype", "attention", "group_norm")  # what the status line names
log = logging.getLogger("glassbox")


class Broken(Exception):
    """Something failed that the user cannot mend; the cause is in the server's log."""


@dataclass(frozen=True)
class Progress:
    """A step is done. image and index count from 1; preview is a data URL."""

    image: int
    count: int
    index: int
    total: int
    seconds: float
    preview: str


@dataclass(frozen=True)
class Finished:
    """All pictures are done: PNG files that hold their parameters text."""

    files: list[str]
    parameters: str
    seed: int
    seconds: float
    ran_on: str


Painter = Callable[[dict, str], Iterator[Progress | Finished]]


def painter(models, on_gpu: Callable = lambda function: function) -> Painter:
    """The server's one way to pictures: `paint(fields, folder)`, closed to stop it.

    `on_gpu` wraps the work where a GPU is lent by the call (ZeroGPU). The iterator raises
    InputError for what the user can mend, and Broken for the rest.
    """
    device = threading.Lock()

    @on_gpu
    def work(fields: dict, folder: str) -> Iterator[Progress | Finished]:
        for event in models.stream(GenerateOptions(**fields)):
            if hasattr(event, "images"):
                yield _finished(event, Path(folder))
            else:
                yield _progress(event)

    def paint(fields: dict, folder: str) -> Iterator[Progress | Finished]:
        GenerateOptions(**fields)  # bad input need not wait for the device
        with device:
            events = work(fields, folder)
            try:
                yield from events
            except InputError:
                raise
            except Exception:
                log.exception("a request failed")
                raise Broken from None
            finally:
                events.close()

    return paint


def _progress(step) -> Progress:
    return Progress(
        image=step.image + 1,
        count=step.count,
        index=step.index,
        total=step.total,
        seconds=step.seconds,
        preview=_data_url(step.preview),
    )


def _finished(result, folder: Path) -> Finished:
    from pipeline.engine import save_picture

    files = [
        str(save_picture(picture, folder / f"glassbox-{seed}.png"))
        for picture, seed in zip(result.images, result.seeds, strict=True)
    ]
    ran = result.metadata
    return Finished(
        files=files,
        parameters="\n\n".join(result.parameters),
        seed=result.seeds[0],
        seconds=result.seconds,
        ran_on=" · ".join(str(ran[k]) for k in RAN if ran.get(k)),
    )


def _data_url(picture) -> str:
    """A preview inside the page itself: no file that another user could fetch."""
    small = picture.convert("RGB")
    small.thumbnail((256, 256))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
