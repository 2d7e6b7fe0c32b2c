"""What the tab Arena shows: the lanes with their pictures, their curves and tables, as HTML."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from pipeline.introspection import arena
from pipeline.samplers import SAMPLERS, SCHEDULES

from ...texts import say
from ...ui.images import data_url
from ...ui.plots import Curve, Frame, plot, swatch
from ...ui.status import status_line, warning_list

SIDE = 256  # pixels of a picture in a lane
EVERY = 0.15  # seconds between two pictures of a lane
SIGMAS, FAR = (0.02, 20.0), (0.001, 2.0)  # what the plots show at least
REFERENCE = -1  # its place among the lanes


@dataclass(frozen=True)
class News:
    """An event of pipeline/introspection/arena.py without its tensors, with what the page shows.

    picture: a data URL; "" where the one before stays. file: the finished picture; text: its
    parameters; warnings: of its Result.
    """

    event: Any
    picture: str = ""
    file: str = ""
    text: str = ""
    warnings: tuple[str, ...] = ()


def news(events: Iterator, folder: str, given: Sequence) -> Iterator[News]:
    """Each event as it is to be shown; pictures of the lanes `given` go to files in `folder`."""
    shown: dict[int | None, float] = {}
    try:
        for event in events:
            if isinstance(event, arena.CallDone):
                yield News(replace(event, event=None), _due(event, shown))
            elif isinstance(event, arena.EntryDone):
                made = event.result
                name = f"glassbox-{made.seeds[0]}-{given[event.entry].key}.png"
                (file,) = made.save(Path(folder) / name)
                seen = data_url(made.images[0], SIDE), str(file), made.parameters[0], made.warnings
                yield News(replace(event, result=None), *seen)
            elif isinstance(event, arena.Reference):
                yield News(event, data_url(event.image, SIDE))
            else:
                yield News(event)
    finally:
        events.close()


def _due(call: arena.CallDone, shown: dict) -> str:
    """The picture so far, if the lane's last one is old enough; a fast GPU makes too many."""
    if time.monotonic() - shown.get(call.entry, 0.0) < EVERY:
        return ""
    shown[call.entry] = time.monotonic()
    return data_url(call.event.preview, SIDE)


@dataclass
class Track:
    """A lane as the page knows it."""

    label: str
    picture: str = ""
    calls: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    sigmas: list[tuple[int, float]] = field(default_factory=list)  # at the first call of each step
    distances: list[float] = field(default_factory=list)
    last: float | None = None
    file: str = ""
    text: str = ""
    out: str = ""
    compared: arena.BackendComparison | None = None

    def take(self, event) -> None:
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
            self.out = event.reason
        elif isinstance(event, arena.BackendComparison):
            self.compared = event


class Board:
    """All lanes of one race, told News; gives the page's HTML in `language`.

    given: the entries or pairs of backends that race. reference: known from an earlier race.
    """

    def __init__(self, given: Sequence, steps: int, shape: tuple[int, int], language: str):
        self.given, self.steps, self.shape, self.language = given, steps, shape, language
        self.backends = isinstance(given[0], arena.BackendPair)
        self.tracks = [Track(one.label, total=steps) for one in given]
        self.reference = Track(arena.REFERENCE.label, total=arena.REFERENCE_STEPS)
        self.warnings: dict[str, None] = {}
        self.began = time.monotonic()
        self.known = self.over = False

    def know(self, reference: arena.Reference) -> None:
        """The reference is known from an earlier race."""
        self.known = True
        self.reference.picture = data_url(reference.image, SIDE)

    def take(self, news: News) -> None:
        event = news.event
        if isinstance(event, arena.Reference):
            track, self.known = self.reference, True
        else:
            track = self.reference if event.entry is None else self.tracks[event.entry]
            track.take(event)
        track.picture = news.picture or track.picture
        track.file, track.text = news.file or track.file, news.text or track.text
        self.warnings |= dict.fromkeys(news.warnings)

    # the status line

    def running(self) -> str:
        right = say("seconds", self.language, seconds=time.monotonic() - self.began)
        drawn = self.reference
        if drawn.calls and not self.known:
            what = say("arena_reference_on", self.language, index=drawn.step, total=drawn.total)
            return status_line("running", what, right, drawn.step / drawn.total)
        share = sum(t.step / max(1, t.total) for t in self.tracks) / len(self.tracks)
        return status_line("running", self._calls("arena_on"), right, share)

    def done(self) -> str:
        right = say("seconds", self.language, seconds=time.monotonic() - self.began)
        warnings = warning_list(self.warnings)
        return status_line("done", self._calls("arena_done"), right, 1.0, warnings)

    def _calls(self, key: str) -> str:
        calls = sum(t.calls for t in self.tracks) + self.reference.calls
        return say(key, self.language, calls=calls)

    # the lanes

    def lanes(self) -> str:
        tiles = [self._tile(track, i) for i, track in enumerate(self.tracks)]
        if not self.backends:
            tiles.append(self._tile(self.reference, REFERENCE))
        return f'<ul class="gb-lanes">{"".join(tiles)}</ul>'

    def _tile(self, track: Track, place: int) -> str:
        width, height = self.shape
        label = escape(track.label)
        if place == REFERENCE:
            label = say("arena_reference", self.language, name=label)
        alt = say("arena_alt", self.language, name=label)
        image = f'<img src="{track.picture}" alt="{alt}">' if track.picture else ""
        mark = "" if self.backends or place == REFERENCE else swatch(place)
        state = "gb-there" if track.file else "gb-out" if track.out else ""
        return (
            f'<li class="gb-lane {state}" data-lane="{place}">'
            f'<div class="gb-sight" style="aspect-ratio:{width}/{height}">{image}</div>'
            f"<b>{mark}{label}</b><span>{self._how_far(track, place)}</span></li>"
        )

    def _how_far(self, track: Track, place: int) -> str:
        if track.out:
            return escape(track.out)
        if place == REFERENCE:
            if self.known and not track.calls:
                return say("arena_known", self.language)
            return say("arena_step", self.language, index=track.step, total=track.total)
        step = say("arena_step", self.language, index=track.step, total=track.total)
        lines = [step, say("arena_calls", self.language, calls=track.calls)]
        far = track.last if track.last is not None else (track.distances or [None])[-1]
        if far is not None:
            lines.append(say("arena_far", self.language, far=number(far)))
        elif self.backends:
            lines.append(say("seconds", self.language, seconds=track.seconds))
        return "<br>".join(lines)

    # what comes out

    def told(self) -> list[dict]:
        """All numbers of a race of samplers, for clients."""
        return [
            {
                "sampler": lane.sampler,
                "schedule": lane.schedule,
                "steps": track.step,
                "calls": track.calls,
                "seconds": track.seconds,
                "sigmas": [sigma for _, sigma in track.sigmas],
                "distances": track.distances,
                "distance": track.last,
            }
            for track, lane in zip(self.tracks, self.given, strict=True)
        ]

    def report(self) -> str:
        return self._compared() if self.backends else self._curves() + self._table()

    def _curves(self) -> str:
        return curves(self.tracks, [lane.sampler for lane in self.given], self.steps, self.language)

    def _table(self) -> str:
        heads = (
            "sampler", "arena_head_far", "arena_head_calls", "arena_head_time", "steps", "schedule",
        )  # fmt: skip
        nearest = min(
            (t.last for t, lane in zip(self.tracks, self.given, strict=True)
             if t.last is not None and lane.sampler not in arena.NOT_ODE),
            default=None,
        )  # fmt: skip
        rows = []
        for i, (track, lane) in enumerate(zip(self.tracks, self.given, strict=True)):
            schedule = SCHEDULES[lane.resolved_schedule].label
            if lane.schedule == "automatic":
                schedule = f"{SCHEDULES[lane.schedule].label}: {schedule}"
            far = "–" if track.last is None else number(track.last)
            if track.last is not None and track.last == nearest:
                far = f'<b class="gb-nearest">{far}</b>'
            elif lane.sampler in arena.NOT_ODE:
                far += f" <i>{say('arena_elsewhere_mark', self.language)}</i>"
            cells = [far, track.calls, f"{track.seconds:.2f} s", track.step, schedule]
            rows.append(_row(f"{swatch(i)}{escape(SAMPLERS[lane.sampler].label)}", cells))
        return _table([say(h, self.language) for h in heads], rows) + self._texts()

    def _texts(self) -> str:
        texts = [t for t in self.tracks if t.text]
        if not texts:
            return ""
        blocks = "".join(f"<dt>{escape(t.label)}</dt><dd>{escape(t.text)}</dd>" for t in texts)
        return (
            f'<details class="gb-texts"><summary>{say("parameters", self.language)}</summary>'
            f"<dl>{blocks}</dl></details>"
        )

    def _compared(self) -> str:
        heads = (
            "attention", "group_norm", "arena_head_step", "arena_head_speed",
            "arena_head_pixels", "arena_head_latents",
        )  # fmt: skip
        done = [t.compared for t in self.tracks if t.compared]
        base = done[0].median if done else None
        rows = []
        for track, rival in zip(self.tracks, self.given, strict=True):
            told = track.compared
            cells = [escape(rival.group_norm)]
            if track.out:
                cells += [escape(track.out), "", "", ""]
            elif told is None:
                cells += ["–"] * 4
            else:
                cells += [f"{1000 * told.median:.3g} ms", f"{base / told.median:.2f}×"]
                if told.entry == told.baseline:
                    cells += [say("arena_base", self.language)] * 2
                else:
                    cells += [say("arena_of_255", self.language, pixels=told.pixels)]
                    cells += [f"{told.latents:.2g}"]
            rows.append(_row(escape(rival.attention), cells))
        return _table([say(h, self.language) for h in heads], rows)


def curves(tracks: Sequence[Track], samplers: Sequence[str], steps: int, language: str) -> str:
    """Both plots; without tracks only their axes."""
    calls = max((SAMPLERS[s].order * steps for s in samplers), default=steps)
    names = ", ".join(t.label for t in tracks)
    sigma = plot(
        [Curve(t.sigmas, i) for i, t in enumerate(tracks)],
        Frame(steps, *SIGMAS),
        x_label=say("steps", language),
        alt=say("arena_sigma_alt", language, names=names),
    )
    far = plot(
        [Curve([*enumerate(t.distances, 1)], i) for i, t in enumerate(tracks)],
        Frame(calls, *FAR),
        x_label=say("arena_head_calls", language),
        alt=say("arena_far_alt", language, names=names),
        empty=say("arena_far_later", language) if tracks else "",
    )
    legend = "".join(f"<li>{swatch(i)}{escape(t.label)}</li>" for i, t in enumerate(tracks))
    figures = "".join(
        f"<figure><figcaption>{say(title, language)}</figcaption>{drawn}</figure>"
        for title, drawn in (("arena_sigma", sigma), ("arena_far_title", far))
    )
    return f'<div class="gb-plots">{figures}</div><ul class="gb-legend">{legend}</ul>'


def said(language: str) -> str:
    """What the reference and a distance are, and who need not come near."""
    name, steps = arena.REFERENCE.label, arena.REFERENCE_STEPS
    fresh, other = (
        ", ".join(SAMPLERS[key].label for key in SAMPLERS if key in keys)
        for keys in (arena.STOCHASTIC, arena.NOT_ODE - arena.STOCHASTIC)
    )
    return _notes(
        say("arena_about", language, name=name, steps=steps),
        say("arena_elsewhere", language, fresh=fresh, other=other),
    )


def said_of_backends(models, language: str) -> str:
    """What their differences are, and which do not race here, and why."""
    base = arena.BackendPair(**arena.PLAIN).label
    about = _notes(say("arena_backends_about", language, base=base))
    rows = "".join(
        f"<li><b>{say(kind, language)}: {escape(name)}</b> {escape(why)}</li>"
        for kind, name, why in arena.missing_backends(models)
    )
    if not rows:
        return about
    head = say("arena_absent", language)
    return f'{about}<div class="gb-absent"><p>{head}</p><ul>{rows}</ul></div>'


def _notes(*sentences: str) -> str:
    return "".join(f'<p class="gb-note gb-not">{escape(s)}</p>' for s in sentences)


def number(value: float) -> str:
    """Three digits, without an exponent where it can be helped."""
    return f"{value:.3g}" if value == 0 or value >= 1e-4 else f"{value:.1e}"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(rows)
    return (
        '<div class="gb-scroll" tabindex="0"><table class="gb-results">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(first: str, cells: Sequence) -> str:
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
