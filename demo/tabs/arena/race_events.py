"""Events of a race in a form that can be sent to the page, and the state of each lane.

An entry is one competitor of a race: a sampler with its schedule, or a pair of backends. A lane is
the place where the page shows one entry.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.introspection import arena

from ...ui.images import data_url

PICTURE_SIDE = 256  # pixels: the longer side of a picture in a lane
PICTURE_EVERY = (
    0.15  # seconds between two previews of a lane: a fast GPU makes more than one can see
)
Entries = Sequence[arena.Entry] | Sequence[arena.BackendPair]


@dataclass(frozen=True)
class RaceEvent:
    """An event of pipeline/introspection/arena.py without tensors, and the pictures it brings.

    event     a CallDone, EntryDone, Reference, Distances, Failed or BackendComparison of arena.py
    picture   the lane's new picture as a data URL; "" if the one before stays
    file      the path of a finished picture's PNG file; "" for other events
    text      a finished picture's parameters text; "" for other events
    warnings  the warnings of a finished picture's Result, sentences
    """

    event: Any
    picture: str = ""
    file: str = ""
    text: str = ""
    warnings: tuple[str, ...] = ()


def to_race_events(
    events: Generator[Any, None, None], folder: str, entries: Entries
) -> Iterator[RaceEvent]:
    """Yield a RaceEvent for each event of the pipeline's race, and save each finished picture.

    folder: where the PNG files are written. entries: the competitors, whose keys become part of
    the file names. Closing the iterator closes `events`, which stops the race.
    """
    last_sent: dict[int | None, float] = {}  # by index of the entry: time of its last preview
    try:
        for event in events:
            if isinstance(event, arena.CallDone):
                yield RaceEvent(replace(event, event=None), _picture_if_due(event, last_sent))
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


def _picture_if_due(call: arena.CallDone, last_sent: dict[int | None, float]) -> str:
    """Return the preview of a call as a data URL; "" within PICTURE_EVERY of the lane's last one.

    last_sent: a dict from the index of an entry to the time (seconds) of its last preview; this
    function updates it.
    """
    now = time.monotonic()
    if call.event is None or now - last_sent.get(call.entry, 0.0) < PICTURE_EVERY:
        return ""
    last_sent[call.entry] = now
    return data_url(call.event.preview, PICTURE_SIDE)


@dataclass
class LaneState:
    """The state of one lane: what the page shows of one entry, or of the reference.

    picture     the latest picture, as a data URL
    calls       model calls so far
    step        the current step, from 1 to `total`
    seconds     drawing time so far
    sigmas      (step, noise level) at the first call of each step
    distances   the distance from the predicted x0 to the reference, after each call
    last        the distance from the final latents to the reference; None while it is unknown
    file        the path of the finished picture's PNG file; "" before
    text        the finished picture's parameters text; "" before
    failure     why a pair of backends is out of the race, a sentence; "" while it runs
    comparison  the result of a pair of backends; None until the race is done
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
        """Update this lane with a CallDone, Distances, Failed or BackendComparison of its entry."""
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
