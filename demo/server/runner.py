"""Run the requests of page and web API on the server's device, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import tasks
from pipeline.events import Result, Step
from pipeline.introspection.recording import Recorder, RecordingStore
from pipeline.model_cache import ModelCache

from ..events import Finished, Progress, Refused
from ..limits import Limits
from ..ui.failures import hide_internal_errors
from ..ui.images import THUMBNAIL_SIDE, data_url
from .visitors import Visitors
from .work import check_work, is_drawing
from .zerogpu import ON_ZERO_GPU, Work

MODEL_FIELDS = ("model", "vae")  # fields that name a checkpoint and an autoencoder
RAN_ON_FIELDS = ("device", "dtype", "attention", "group_norm")  # shown in the status line
PREVIEW_SIDE = 256  # pixels of the longer side of a preview


def task_fields(task: str) -> tuple[str, ...]:
    """Return the names of all fields that a request for a task may have.

    They are the fields of the task's Options, "model" and "vae". task: its key, such as "inpaint".
    """
    return (*tasks.module(task).Options.model_fields, *MODEL_FIELDS)


class Runner:
    """Runs all work of a server on its device (GPU or CPU), one request at a time.

    A lock on the device is held until a request has really stopped: after a cancellation, Gradio's
    queue starts the next request at once, while the cancelled one still finishes a sampling step.

    wrap_gpu_work: decorates the generator functions that use the device; on ZeroGPU it requests a
    GPU
    visitors: the visitors' trainings, whose LoRAs they draw with
    recordings: the store of recordings: all model calls of each picture that was drawn with
        `record`, which the tab Look inside shows
    limits: how much a request may draw (max_work) and for how long (max_seconds)
    """

    def __init__(
        self,
        model_cache: ModelCache,
        wrap_gpu_work: Callable[[Work], Work] = lambda work: work,
        visitors: Visitors | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ):
        self.visitors, self.limits = visitors or Visitors(), limits
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
        """Decorate a generator function so that it has the server's device to itself while it runs.

        Of all functions that this Runner has decorated, one runs at a time and the others wait.
        Closing the generator that a call returns stops the work. InputError and Broken are passed
        on; any other exception is logged and replaced by Broken.

        A function that draws pictures takes (task, options, names, folder, entries, ...), as many
        of them as it needs, see `estimate_seconds` in zerogpu.py. A call that would draw more than
        `limits` allow raises Refused before it waits for the device; any call that has had the
        device for longer than they allow is ended after its step, by Refused.
        """
        on_gpu = self._wrap_gpu_work(work)

        def run(*args: Any) -> Iterator[Any]:
            with hide_internal_errors():
                self._check(*args)
            with self._device_lock:
                events = on_gpu(*args)
                try:
                    with hide_internal_errors():
                        yield from self._until_deadline(events)
                finally:
                    events.close()  # type: ignore[attr-defined]  # a generator

        return run

    def _check(self, *args: Any) -> None:
        """Raise Refused if a call with these arguments would draw more than the limits allow.

        Arguments of a function that does not draw are not looked at.
        """
        if not self.limits.max_work or not is_drawing(args):
            return
        task, options = args[:2]
        names = args[2] if len(args) > 2 else ()
        entries = args[4] if task == "arena" else ()
        defaults = self.model_cache.get(*names).defaults
        check_work(self.limits.max_work, task, options, entries, defaults)

    def _until_deadline(self, events: Iterable[Any]) -> Iterator[Any]:
        """Yield `events`; raise Refused at the first one that comes later than max_seconds."""
        began, limit = time.monotonic(), self.limits.max_seconds
        for event in events:
            if limit and time.monotonic() - began > limit:
                raise Refused("too_long", seconds=limit)
            yield event

    def names(self, fields: dict[str, Any], visitor: str) -> tuple[Any, ...]:
        """Return the arguments of ModelCache.get for a request: model, autoencoder, LoRA folder.

        fields: of the request, with "model" and "vae"; None or "" for the default. visitor: the id
        of the visitor whose own LoRAs prompts may name; "" for nobody's.
        """
        loras = self.visitors.lora_folder(visitor) if visitor else None
        return (*(fields.get(key) or None for key in MODEL_FIELDS), loras)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no work has the device, for at most `seconds`; return whether that is so.

        The device is not given to any work after that: for a server that ends.
        """
        return self._device_lock.acquire(timeout=seconds)

    def stream(
        self,
        fields: dict[str, Any],
        folder: str,
        task: str = "generate",
        *,
        record: bool = False,
        visitor: str = "",
    ) -> Iterator[Progress | Finished]:
        """Run a task on the device: yield a Progress after each sampling step, then a Finished.

        Closing the generator stops the work.
        fields: values for the task's Options, by name, and "model" (None: the first model) and
            "vae" (None: the model's own), which are names in the model cache
        folder: where the PNG files are written
        record: store all model calls of each picture in `recordings`, for the tab Look inside;
            ignored on ZeroGPU
        visitor: the id of the visitor, from visitors.identify, whose own LoRAs the prompt may name;
            "" for nobody's
        Raises InputError for what the user can correct, and Broken for every other error.
        """
        names = self.names(fields, visitor)
        with hide_internal_errors():
            # Before holding the device: wrong input must not wait, opening files must not block it.
            given = {k: v for k, v in fields.items() if k not in MODEL_FIELDS}
            options = tasks.options(task, **given)
            self.model_cache.get(*names)
        yield from self._draw(task, options, names, folder, record and not ON_ZERO_GPU)


def report_events(
    events: Iterable[Step | Result], folder: str, recordings: RecordingStore
) -> Iterator[Progress | Finished]:
    """Turn the pipeline's events of one request into the page's events.

    Yields a Progress for each Step, and a Finished for the Result, whose pictures are saved.
    events: from `tasks.stream`; or a Recorder around it, which also records all model calls of each
        picture: these recordings are put into `recordings`
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
