"""Render a race as HTML: the status line, a tile for each lane, the curves and tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any, cast

from pipeline.introspection import arena
from pipeline.samplers import SAMPLERS, SCHEDULES

from ...texts import say
from ...ui.images import data_url
from ...ui.plots import swatch
from ...ui.status import status_line, warning_list
from .charts import format_number, render_curves, render_row, render_table
from .race_events import PICTURE_SIDE, Entries, LaneState, RaceEvent

REFERENCE = -1  # the index of the reference's tile; the lanes of the entries count from 0


class RaceView:
    """The state of one race of samplers or of backends, and its HTML in one language.

    In a race they draw the same picture side by side. Samplers are compared with a reference, an
    almost exact solution of the ODE.

    entries          the samplers that race, or the pairs of an attention and a GroupNorm backend
    steps            the number of sampling steps of each of them
    size             (width, height) of the pictures in pixels
    of_backends      whether pairs of backends race, not samplers
    lanes            what the page shows of each of `entries`, in the same order
    reference        what the page shows of the reference; only a race of samplers shows it
    knows_reference  whether the reference has been drawn, so that distances can be measured
    warnings         the warnings of all pictures, each once: a dict as an ordered set
    finished         whether the race is over
    """

    def __init__(self, entries: Entries, steps: int, size: tuple[int, int], language: str):
        self.entries, self.steps, self.size, self.language = entries, steps, size, language
        self.of_backends = isinstance(entries[0], arena.BackendPair)
        self.lanes = [LaneState(entry.label, total=steps) for entry in entries]
        self.reference = LaneState(arena.REFERENCE.label, total=arena.REFERENCE_STEPS)
        self.warnings: dict[str, None] = {}
        self.began = time.monotonic()
        self.knows_reference = self.finished = False

    def set_reference(self, reference: arena.Reference) -> None:
        """Show the picture of a reference that an earlier race has drawn, so it is not drawn again.

        The reference is the almost exact solution with which the race compares samplers.
        """
        self.knows_reference = True
        self.reference.picture = data_url(reference.image, PICTURE_SIDE)

    def apply(self, race_event: RaceEvent) -> None:
        """Update what is shown of the competitor that an event of the race concerns.

        A competitor is a sampler, a pair of an attention and a GroupNorm backend, or the reference.
        The event's warnings are added to `warnings`.
        """
        event = race_event.event
        if isinstance(event, arena.Reference):
            lane, self.knows_reference = self.reference, True
        else:
            lane = self.reference if event.entry is None else self.lanes[event.entry]
            lane.apply(event)
        lane.picture = race_event.picture or lane.picture
        lane.file, lane.text = race_event.file or lane.file, race_event.text or lane.text
        self.warnings |= dict.fromkeys(race_event.warnings)

    def files(self) -> list[str]:
        """Return the paths of the PNG files of all finished pictures."""
        return [lane.file for lane in self.lanes if lane.file]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the results of a race of samplers for the web API, a dict for each sampler.

        Keys: "sampler" and "schedule" (as in SAMPLERS and SCHEDULES), "steps", "calls" (of the
        model), "seconds" (drawing time), "sigmas" (noise level of each step), "distances" (to the
        almost exact solution, after each model call) and "distance" (that of the final latents;
        None if unknown).
        """
        entries = cast(Sequence[arena.Entry], self.entries)
        return [
            {
                "sampler": entry.sampler,
                "schedule": entry.schedule,
                "steps": lane.step,
                "calls": lane.calls,
                "seconds": lane.seconds,
                "sigmas": [sigma for _, sigma in lane.sigmas],
                "distances": lane.distances,
                "distance": lane.last,
            }
            for lane, entry in zip(self.lanes, entries, strict=True)
        ]

    # ---- the status line ----------------------------------------------------------------------

    def progress_line(self) -> str:
        """Return the HTML status line of the running race: model calls, seconds, progress bar."""
        right = say("seconds", self.language, seconds=time.monotonic() - self.began)
        lane = self.reference
        if lane.calls and not self.knows_reference:
            what = say("arena_reference_on", self.language, index=lane.step, total=lane.total)
            return status_line("running", what, right, lane.step / lane.total)
        share = sum(lane.step / max(1, lane.total) for lane in self.lanes) / len(self.lanes)
        return status_line("running", self._calls("arena_on"), right, share)

    def done_line(self) -> str:
        """Return the HTML status line of the finished race, with the warnings of all pictures."""
        right = say("seconds", self.language, seconds=time.monotonic() - self.began)
        warnings = warning_list(self.warnings)
        return status_line("done", self._calls("arena_done"), right, 1.0, warnings)

    def _calls(self, key: str) -> str:
        calls = sum(lane.calls for lane in self.lanes) + self.reference.calls
        return say(key, self.language, calls=calls)

    # ---- the lanes ----------------------------------------------------------------------------

    def render_lanes(self) -> str:
        """Return a tile for each competitor of the race as HTML: picture, name and progress.

        A competitor is a sampler, or a pair of an attention and a GroupNorm backend. In a race of
        samplers the last tile is that of the reference, an almost exact solution.
        """
        tiles = [self._tile(lane, i) for i, lane in enumerate(self.lanes)]
        if not self.of_backends:
            tiles.append(self._tile(self.reference, REFERENCE))
        return f'<ul class="gb-lanes">{"".join(tiles)}</ul>'

    def _tile(self, lane: LaneState, index: int) -> str:
        width, height = self.size
        label = escape(lane.label)
        if index == REFERENCE:
            label = say("arena_reference", self.language, name=label)
        alt = say("arena_alt", self.language, name=label)
        image = f'<img src="{lane.picture}" alt="{alt}">' if lane.picture else ""
        mark = "" if self.of_backends or index == REFERENCE else swatch(index)
        state = "gb-there" if lane.file else "gb-out" if lane.failure else ""
        return (
            f'<li class="gb-lane {state}" data-lane="{index}">'
            f'<div class="gb-sight" style="aspect-ratio:{width}/{height}">{image}</div>'
            f"<b>{mark}{label}</b><span>{self._progress(lane, index)}</span></li>"
        )

    def _progress(self, lane: LaneState, index: int) -> str:
        """Return the HTML text under the picture of one competitor of a race: how far it has got.

        Competitors that draw the same picture are samplers or pairs of an attention and a GroupNorm
        backend. The text has the step and the model calls, and for a sampler the distance to the
        reference (an almost exact solution of the ODE), for a pair the seconds, or why it failed.
        For the reference itself it has only the step, or says that its picture is already known.

        lane: the competitor's state. index: its index in `lanes`; REFERENCE for the reference.
        """
        if lane.failure:
            return escape(lane.failure)
        if index == REFERENCE and self.knows_reference and not lane.calls:
            return say("arena_known", self.language)
        step = say("arena_step", self.language, index=lane.step, total=lane.total)
        if index == REFERENCE:
            return step
        lines = [step, say("arena_calls", self.language, calls=lane.calls)]
        distances = [*lane.distances, *([] if lane.last is None else [lane.last])]
        if distances:
            lines.append(say("arena_far", self.language, far=format_number(distances[-1])))
        elif self.of_backends:
            lines.append(say("seconds", self.language, seconds=lane.seconds))
        return "<br>".join(lines)

    # ---- the report ---------------------------------------------------------------------------

    def render_report(self) -> str:
        """Return the results of a race as HTML, to stand below its pictures.

        A race draws the same picture with several samplers, or with several pairs of backends (one
        for attention, one for GroupNorm). Samplers get plots, a table and the parameters texts
        (infotext) of their pictures; pairs of backends get a table.
        """
        if self.of_backends:
            return self._backend_table(cast(Sequence[arena.BackendPair], self.entries))
        entries = cast(Sequence[arena.Entry], self.entries)
        samplers = [entry.sampler for entry in entries]
        curves = render_curves(self.lanes, samplers, self.steps, self.language)
        return curves + self._sampler_table(entries) + self._parameters()

    def _sampler_table(self, entries: Sequence[arena.Entry]) -> str:
        heads = (
            "sampler", "arena_head_far", "arena_head_calls", "arena_head_time", "steps", "schedule",
        )  # fmt: skip
        measured = [
            lane.last
            for lane, entry in zip(self.lanes, entries, strict=True)
            if lane.last is not None and entry.sampler not in arena.NOT_ODE
        ]
        nearest = min(measured, default=None)
        rows = []
        for i, (lane, entry) in enumerate(zip(self.lanes, entries, strict=True)):
            schedule = SCHEDULES[entry.resolved_schedule].label
            if entry.schedule == "automatic":
                schedule = f"{SCHEDULES[entry.schedule].label}: {schedule}"
            far = "–" if lane.last is None else format_number(lane.last)
            if lane.last is not None and lane.last == nearest:
                far = f'<b class="gb-nearest">{far}</b>'
            elif entry.sampler in arena.NOT_ODE:
                far += f" <i>{say('arena_elsewhere_mark', self.language)}</i>"
            cells = [far, lane.calls, f"{lane.seconds:.2f} s", lane.step, schedule]
            rows.append(render_row(f"{swatch(i)}{escape(SAMPLERS[entry.sampler].label)}", cells))
        return render_table([say(h, self.language) for h in heads], rows)

    def _parameters(self) -> str:
        texts = [lane for lane in self.lanes if lane.text]
        if not texts:
            return ""
        blocks = "".join(f"<dt>{escape(t.label)}</dt><dd>{escape(t.text)}</dd>" for t in texts)
        return (
            f'<details class="gb-texts"><summary>{say("parameters", self.language)}</summary>'
            f"<dl>{blocks}</dl></details>"
        )

    def _backend_table(self, pairs: Sequence[arena.BackendPair]) -> str:
        heads = (
            "attention", "group_norm", "arena_head_step", "arena_head_speed",
            "arena_head_pixels", "arena_head_latents",
        )  # fmt: skip
        done = [lane.comparison for lane in self.lanes if lane.comparison]
        rows = []
        for lane, pair in zip(self.lanes, pairs, strict=True):
            compared = lane.comparison
            cells = [escape(pair.group_norm)]
            if lane.failure:
                cells += [escape(lane.failure), "", "", ""]
            elif compared is None:
                cells += ["–"] * 4
            else:
                speed = done[0].median / compared.median
                cells += [f"{1000 * compared.median:.3g} ms", f"{speed:.2f}×"]
                if compared.entry == compared.baseline:
                    cells += [say("arena_base", self.language)] * 2
                else:
                    cells += [say("arena_of_255", self.language, pixels=compared.pixels)]
                    cells += [f"{compared.latents:.2g}"]
            rows.append(render_row(escape(pair.attention), cells))
        return render_table([say(h, self.language) for h in heads], rows)
