"""Run the requests of page and web API on the server's device, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import tasks
from pipeline.events import Result, Step
from pipeline.introspection.recording import Recorder, RecordingStore
from pipeline.model_cache import ModelCache

from ..events import Finished, Progress
from ..ui.failures import hide_internal_errors
from ..ui.images import THUMBNAIL_SIDE, data_url
from .zerogpu import ON_ZERO_GPU, Work

MODEL_FIELDS = ("model", "vae")  # fields that name a checkpoint and an autoencoder
RAN_ON_FIELDS = ("device", "dtype", "attention", "group_norm")  # shown in the status line
PREVIEW_SIDE = 256  # pixels of the longer side of a preview


def task_fields(task: str) -> tuple[str, ...]:
    """Return the names of a request's fields: those of the task's Options, "model" and "vae"."""
    return (*tasks.module(task).Options.model_fields, *MODEL_FIELDS)


class Runner:
    """Runs all work of a server on its device, one request at a time.

    A lock is held until a request has really stopped: Gradio's queue starts the next request as
    soon as one is cancelled, while that one's sampling step still runs.

    wrap_gpu_work: decorates the generator functions that use the device, see zerogpu.py
    recordings: the recordings of the pictures that were drawn with `record`, for Look inside
    """

    def __init__(
        self, model_cache: ModelCache, wrap_gpu_work: Callable[[Work], Work] = lambda work: work
    ):
        self.model_cache, self.recordings = model_cache, RecordingStore()
        self._wrap_gpu_work, self._device_lock = wrap_gpu_work, threading.Lock()

        def draw(
            task: str, options: Any, names: tuple, folder: str, record: bool
        ) -> Iterator[Progress | Finished]:
            models = model_cache.get(*names)
            events = tasks.stream(models, task, options, model_cache, words=record)
            recorded = Recorder(models, events) if record else events
            yield from report_events(recorded, folder, self.recordings)

        self._draw = self.on_device(draw)

    def on_device(self, work: Work) -> Work:
        """Decorate a generator function so that only one call of all such functions runs at a time.

        Closing a call's generator stops the work. InputError and Broken pass; any other exception
        is logged and becomes Broken.
        """
        on_gpu = self._wrap_gpu_work(work)

        def run(*args: Any) -> Iterator[Any]:
            with self._device_lock:
                events = on_gpu(*args)
                try:
                    with hide_internal_errors():
                        yield from events
                finally:
                    events.close()  # type: ignore[attr-defined]  # a generator

        return run

    def stream(
        self, fields: dict[str, Any], folder: str, task: str = "generate", *, record: bool = False
    ) -> Iterator[Progress | Finished]:
        """Run a task: yield a Progress for each step, then a Finished. Closing it stops the work.

        fields: values for the task's Options, by name, and "model" (None: the first model) and
            "vae" (None: the model's own), which are names in the model cache
        folder: where the PNG files are written
        record: record the sampling for Look inside; not done on ZeroGPU
        Raises InputError for what the user can correct, and Broken for every other error.
        """
        names = tuple(fields.get(key) for key in MODEL_FIELDS)
        with hide_internal_errors():
            # Before holding the device: wrong input must not wait, opening files must not block it.
            given = {k: v for k, v in fields.items() if k not in MODEL_FIELDS}
            options = tasks.options(task, **given)
            self.model_cache.get(*names)
        yield from self._draw(task, options, names, folder, record and not ON_ZERO_GPU)


def report_events(
    events: Iterable[Step | Result], folder: str, recordings: RecordingStore
) -> Iterator[Progress | Finished]:
    """Yield a Progress for each Step of the engine, and a Finished for its Result.

    events: from `tasks.stream`, or a Recorder around it, whose recordings are put into `recordings`
    folder: where the pictures are written as PNG files
    """
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
        events.close()  # type: ignore[attr-defined]  # a generator, or a Recorder


def _progress(step: Step) -> Progress:
    return Progress(
        image=step.image + 1,
        count=step.count,
        index=step.index,
        total=step.total,
        seconds=step.seconds,
        preview=data_url(step.preview, PREVIEW_SIDE),
    )


def _finished(result: Result, folder: Path) -> Finished:
    files = [str(file) for file in result.save(folder / f"glassbox-{result.seeds[0]}.png")]
    metadata = result.metadata
    return Finished(
        files=files,
        thumbnails=[data_url(picture, THUMBNAIL_SIDE) for picture in result.images],
        texts=list(result.parameters),
        seed=result.seeds[0],
        seconds=result.seconds,
        ran_on=" · ".join(str(metadata[k]) for k in RAN_ON_FIELDS if metadata.get(k)),
        warnings=result.warnings,
    )
