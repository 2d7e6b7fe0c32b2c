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

from ...ui.failures import hide_paths
from ...ui.images import data_url

PICTURE_SIDE = 256  # pixels: the longer side of a picture in a lane
PICTURE_EVERY = (
    0.15  # seconds between two previews of a lane: a fast GPU makes more than one can see
)
Entries = Sequence[arena.Entry] | Sequence[arena.BackendPair]


@dataclass(frozen=True)
class RaceEvent:
    """One event of a race, in which samplers or backends draw the same picture, to compare them.

    In a race of backends each competitor is a pair: an attention and a GroupNorm backend.

    event     the pipeline's event: CallDone (one model call), EntryDone (a picture is finished),
              Reference, Distances, Failed or BackendComparison of pipeline.introspection.arena
    picture   a data URL of the new picture to show on the page for the sampler or pair that the
              event is about; "" if its picture does not change
    file      the path of a finished picture's PNG file; "" for other events
    text      a finished picture's parameters text (infotext); "" for other events
    warnings  sentences on settings of a finished picture that were not applied as requested
    """

    event: Any
    picture: str = ""
    file: str = ""
    text: str = ""
    warnings: tuple[str, ...] = ()


def to_race_events(
    events: Generator[Any, None, None], folder: str, entries: Entries
) -> Iterator[RaceEvent]:
    """Yield a RaceEvent for the page for each event of a race; save finished pictures as PNG files.

    A race draws the same picture with several samplers, or with several pairs of backends (one for
    attention, one for GroupNorm). events: what `race` or `race_backends` of
    pipeline.introspection.arena yields. folder: where the files are written. entries: the samplers
    or pairs that race; their keys become part of the file names. Closing the iterator stops the
    race.
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
    """Return the preview after a model call of a race as a data URL; "" if it comes too soon.

    It comes too soon within PICTURE_EVERY seconds of the last preview of the same competitor: a
    sampler, or a pair of an attention and a GroupNorm backend. last_sent: a dict from the index of
    the competitor to the time (seconds) of its last preview; this function updates it.
    """
    now = time.monotonic()
    if call.event is None or now - last_sent.get(call.entry, 0.0) < PICTURE_EVERY:
        return ""
    last_sent[call.entry] = now
    return data_url(call.event.preview, PICTURE_SIDE)


@dataclass
class LaneState:
    """What the page shows of one competitor of a race, or of the race's reference.

    A race draws the same picture with several samplers, or with several pairs of backends (one for
    attention, one for GroupNorm). The reference is an almost exact solution of the ODE, with which
    samplers are compared.

    label       the name that is shown
    picture     the latest picture, as a data URL
    calls       model calls so far
    step        the current step, from 1 to `total`
    seconds     drawing time so far
    sigmas      (step, noise level) at the first call of each step
    distances   the distance from the predicted x0 to the reference, after each call
    last        the distance from the final latents to the reference; None while it is unknown
    file        the path of the finished picture's PNG file; "" before
    text        the finished picture's parameters text (infotext); "" before
    failure     why a pair of backends is out of the race, a sentence; "" while it runs
    comparison  speed and picture differences of a pair of backends; None until the race is done
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
        """Update what the page shows of a sampler or backend pair in a race, by an event about it.

        A backend pair is an attention and a GroupNorm backend. event: a CallDone (one model call),
        Distances, Failed or BackendComparison of pipeline.introspection.arena; others are ignored.
        """
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
            self.failure = hide_paths(event.reason)
        elif isinstance(event, arena.BackendComparison):
            self.comparison = event
