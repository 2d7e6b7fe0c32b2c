"""From the page's fields to pictures: what the page and the web API share.

One painter a server: its lock holds the device until a request has really stopped, because Gradio
gives the place in the queue free as soon as it is cancelled, while the step still runs.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import tasks
from pipeline.errors import InputError
from pipeline.events import Result
from pipeline.introspection.recording import Recorder, RecordingStore

MODEL = ("model", "vae")  # what the shelf is asked for
RAN = ("device", "dtype", "attention", "group_norm")  # what the status line names
# Where a GPU is lent by the call, what was kept would be lost with the process that has it.
LENT = bool(os.environ.get("SPACES_ZERO_GPU"))
SMALL = 192  # pixels: the larger side of a picture in the history
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
    """All pictures are done: PNG files that hold their parameters text.

    small: each as a data URL, for the history. warnings: what was asked for and not done. records:
    the key of each picture's recording, None where there is none.
    """

    files: list[str]
    small: list[str]
    texts: list[str]
    seed: int
    seconds: float
    ran_on: str
    warnings: tuple[str, ...] = ()
    records: tuple[str | None, ...] = ()

    @property
    def parameters(self) -> str:
        return "\n\n".join(self.texts)


Painter = Callable[..., Iterator[Progress | Finished]]


def fields_of(task: str) -> tuple[str, ...]:
    """What a listener of `task` has as inputs, in this order."""
    return (*tasks.module(task).Options.model_fields, *MODEL)


def painter(model_cache, on_gpu: Callable = lambda function: function) -> Painter:
    """The server's one way to pictures: `paint(fields, folder, task)`, closed to stop it.

    fields: those of the task's Options, under "model" a name of the shelf's choices (None: its
    first), under "vae" another autoencoder's (None: the model's own). `on_gpu` wraps the work where
    a GPU is lent by the call (ZeroGPU). The iterator raises InputError for what the user can mend,
    and Broken for the rest. `paint.on_device(generator)` is another's way onto the same device.
    `paint.recordings` keeps the ways of those pictures that were drawn with `record`.
    """
    device, recordings = threading.Lock(), RecordingStore()

    def on_device(function: Callable[..., Iterator]) -> Callable[..., Iterator]:
        """`function`, a generator, alone on the device and on the lent GPU; see `paint`."""
        lent = on_gpu(function)

        def run(*args):
            with device:
                events = lent(*args)
                try:
                    with broken():
                        yield from events
                finally:
                    events.close()

        return run

    @on_device
    def work(task: str, asked, names: tuple, folder: str, record: bool):
        models = model_cache.get(*names)
        events = tasks.stream(models, task, asked, model_cache, words=record)
        yield from told(Recorder(models, events) if record else events, folder, recordings)

    def paint(
        fields: dict, folder: str, task: str = "generate", *, record: bool = False
    ) -> Iterator[Progress | Finished]:
        names = tuple(fields.get(key) for key in MODEL)
        with broken():
            # Bad input need not wait for the device, nor may opening pictures and models hold it.
            asked = tasks.options(task, **{k: v for k, v in fields.items() if k not in MODEL})
            model_cache.get(*names)
        yield from work(task, asked, names, folder, record and not LENT)

    paint.on_device, paint.recordings = on_device, recordings
    return paint


@contextmanager
def broken() -> Iterator[None]:
    """Whatever fails within goes to the log and becomes Broken, but for what the user can mend."""
    try:
        yield
    except InputError:
        raise
    except Exception:
        log.exception("a request failed")
        raise Broken from None


def told(events, folder: str, recordings: RecordingStore) -> Iterator[Progress | Finished]:
    """What the page is told of a request's events; pictures become files in `folder`, and what a
    Recorder recorded goes to `recordings`."""
    try:
        for event in events:
            if not isinstance(event, Result):
                yield _progress(event)
                continue
            finished = _finished(event, Path(folder))
            if isinstance(events, Recorder):
                sheet = (None,) if event.sheet else ()
                keys = (*sheet, *recordings.put(events.recordings))
                finished = replace(finished, records=keys)
            yield finished
    finally:
        events.close()


def _progress(step) -> Progress:
    return Progress(
        image=step.image + 1,
        count=step.count,
        index=step.index,
        total=step.total,
        seconds=step.seconds,
        preview=data_url(step.preview, 256),
    )


def _finished(result, folder: Path) -> Finished:
    files = [str(file) for file in result.save(folder / f"glassbox-{result.seeds[0]}.png")]
    ran = result.metadata
    return Finished(
        files=files,
        small=[data_url(picture, SMALL) for picture in result.images],
        texts=list(result.parameters),
        seed=result.seeds[0],
        seconds=result.seconds,
        ran_on=" · ".join(str(ran[k]) for k in RAN if ran.get(k)),
        warnings=result.warnings,
    )


def data_url(picture, side: int) -> str:
    """A small picture inside the page itself: no file that another user could fetch."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
