"""The events of a race without their tensors, and what the page knows of each lane."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.introspection import arena

from ...ui.images import data_url

PICTURE_SIDE = 256  # pixels of a picture in a lane
PICTURE_EVERY = 0.15  # seconds between two pictures of a lane: a fast GPU makes too many
Entries = Sequence[arena.Entry] | Sequence[arena.BackendPair]


@dataclass(frozen=True)
class RaceEvent:
    """An event of pipeline/introspection/arena.py without its tensors, and what the page shows.

    picture: a data URL, "" where the lane's last one stays. file, text, warnings: of a finished
    picture its PNG file, its parameters text and the warnings of its Result.
    """

    event: Any
    picture: str = ""
    file: str = ""
    text: str = ""
    warnings: tuple[str, ...] = ()


def to_race_events(
    events: Generator[Any, None, None], folder: str, entries: Entries
) -> Iterator[RaceEvent]:
    """Turn the pipeline's events into RaceEvents; pictures of the entries are saved to `folder`."""
    shown: dict[int | None, float] = {}  # by lane: when its last picture was made
    try:
        for event in events:
            if isinstance(event, arena.CallDone):
                yield RaceEvent(replace(event, event=None), _picture_if_due(event, shown))
            elif isinstance(event, arena.EntryDone) and event.entry is not None:
                yield _finished(event, folder, entries[event.entry].key)
            elif isinstance(event, arena.Reference):
                yield RaceEvent(event, data_url(event.image, PICTURE_SIDE))
            else:
                yield RaceEvent(event)
    finally:
        events.close()


def _finished(event: arena.EntryDone, folder: str, key: str) -> RaceEvent:
    result = event.result
    (file,) = result.save(Path(folder) / f"glassbox-{result.seeds[0]}-{key}.png")
    return RaceEvent(
        replace(event, result=None),  # type: ignore[arg-type]  # its tensors stay on the device
        data_url(result.images[0], PICTURE_SIDE),
        str(file),
        result.parameters[0],
        tuple(result.warnings),
    )


def _picture_if_due(call: arena.CallDone, shown: dict[int | None, float]) -> str:
    """Return the picture so far as a data URL; "" if the lane's last one is too recent."""
    now = time.monotonic()
    if call.event is None or now - shown.get(call.entry, 0.0) < PICTURE_EVERY:
        return ""
    shown[call.entry] = now
    return data_url(call.event.preview, PICTURE_SIDE)


@dataclass
class LaneState:
    """What is known of a lane so far.

    sigmas: (step, noise level) at the first call of each step. distances: to the reference after
    each call, last: of the final latents. failure: why a backend is out of the race.
    """

    label: str
    picture: str = ""
    calls: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    sigmas: list[tuple[int, float]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    last: float | None = None
    file: str = ""
    text: str = ""
    failure: str = ""
    comparison: arena.BackendComparison | None = None

    def apply(self, event: object) -> None:
        """Update the lane with an event of the pipeline that is about it."""
        if isinstance(event, arena.CallDone):
            self.calls, self.total, self.seconds = event.calls, event.total, event.seconds
            if event.step > self.step:
                self.sigmas.append((event.step, event.sigma))
            self.step = event.step
            if event.distance is not None:
                self.distances.append(event.distance)
        elif isinstance(event, arena.Distances):
            self.distances, self.last = list(event.distances), event.last
        elif isinstance(event, arena.Failed):
            self.failure = event.reason
        elif isinstance(event, arena.BackendComparison):
            self.comparison = event
