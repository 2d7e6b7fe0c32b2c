"""Race samplers from one prompt and one noise, or backends on one picture.

All entries take turns, one model call each, so that a busy machine slows them alike. The error of a
sampler is its `distance` to REFERENCE, the solution of the probability-flow ODE from the same
noise. REFERENCE was chosen among samplers of 200 calls by its distance to Heun with 400 calls on
the embedded model: DPM++ 2M and UniPC 0.001, Euler 0.004, and DPM++ 2M Karras, which starts at
another noise level, 0.012.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..backends import KINDS
from ..errors import InputError, closest, short_repr
from ..events import Result
from ..options import GenerateOptions
from ..samplers import SAMPLERS, SCHEDULES, check_pair, make_sampler, split_name, unsupported

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..events import Step
    from ..model import Models
    from ..options import ResolvedOptions

MIN_ENTRIES, MAX_ENTRIES = 2, 6
# Samplers that do not solve the ODE: they add fresh noise, or use another guidance (CFG++).
STOCHASTIC = frozenset(key for key, row in SAMPLERS.items() if row.fresh_noise)
NOT_ODE = STOCHASTIC | {key for key, row in SAMPLERS.items() if row.other_guidance}
PLAIN = {"attention": "math", "group_norm": "torch"}  # the backends that others are compared with
INTERPRETED = "Triton only interprets it here, which would tell nothing of its speed."


@dataclass(frozen=True)
class Entry:
    """A sampler and a schedule that race, as keys of SAMPLERS and SCHEDULES."""

    sampler: str
    schedule: str = "automatic"

    @property
    def label(self) -> str:
        """The name in A1111's style: "DPM++ 2M Karras"; "Euler a" with the automatic schedule."""
        name = SAMPLERS[self.sampler].label
        return name if self.schedule == "automatic" else f"{name} {SCHEDULES[self.schedule].label}"

    @property
    def key(self) -> str:
        """The name for files."""
        return self.sampler if self.schedule == "automatic" else f"{self.sampler}-{self.schedule}"

    @property
    def resolved_schedule(self) -> str:
        """The schedule that runs: the sampler's own where it is automatic."""
        own = SAMPLERS[self.sampler].automatic
        return own if self.schedule == "automatic" else self.schedule


REFERENCE, REFERENCE_STEPS = Entry("dpmpp_2m", "uniform"), 200


@dataclass(frozen=True)
class BackendPair:
    """A backend of attention and one of GroupNorm that race together."""

    attention: str
    group_norm: str

    @property
    def label(self) -> str:
        """The name for people."""
        return f"{self.attention} + {self.group_norm}"

    @property
    def key(self) -> str:
        """The name for files."""
        return f"{self.attention}-{self.group_norm}"


@dataclass(frozen=True)
class CallDone:
    """An entry made one model call.

    entry: its index, None for the reference. calls, seconds: of this entry so far, without
    decoding. step: 1 to total. distance: of the predicted x0 to the reference, see `distance`; None
    while the reference is not known. event: the engine's Step, whose `preview` is the picture so
    far.
    """

    entry: int | None
    calls: int
    step: int
    total: int
    sigma: float
    seconds: float
    distance: float | None = None
    event: Step | None = field(default=None, repr=False)


@dataclass(frozen=True)
class EntryDone:
    """An entry has its picture, the same as drawn alone. entry: its index, None: the reference."""

    entry: int | None
    calls: int
    seconds: float
    result: Result = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """The solution of the ODE from this noise: latents (1, C, h, w) and their picture."""

    latents: torch.Tensor = field(repr=False)
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Distances:
    """The distance of an entry to the reference after each call, and of its final latents."""

    entry: int
    distances: tuple[float, ...]
    last: float


@dataclass(frozen=True)
class Failed:
    """A backend failed during the race and is out of it. reason: one sentence."""

    entry: int
    reason: str


@dataclass(frozen=True)
class BackendComparison:
    """The time of a pair of backends, and how its picture differs from that of entry `baseline`.

    median: seconds a step, without the first, which may compile kernels. pixels: the largest
    difference of a colour value, 0 to 255. latents: the largest difference of the final latents.
    """

    entry: int
    baseline: int
    median: float
    pixels: int
    latents: float


def parse_entries(names: Iterable[Any]) -> tuple[Entry, ...]:
    """Return the entries of names such as "DPM++ 2M Karras" or "dpmpp_2m karras".

    A name without a schedule gets the automatic one. Raises InputError in one sentence for an
    unknown sampler, a pair that cannot run here, a repeated entry, and fewer than MIN_ENTRIES or
    more than MAX_ENTRIES.
    """
    found: list[Entry] = []
    for name in names:
        pair = split_name(name) if isinstance(name, str) else None
        if pair is None:
            there = closest(str(name)[:100], [s.label for s in SAMPLERS.values()])
            raise InputError(f"There is no sampler {short_repr(name)}; there is {there}.")
        entry = Entry(pair[0], pair[1] or "automatic")
        reason = check_pair(entry.sampler, entry.schedule)
        reason = reason or unsupported(entry.sampler) or unsupported(entry.resolved_schedule)
        if reason:
            raise InputError(reason)
        if entry in found:
            raise InputError(f"{entry.label} is in two lanes; take another sampler or schedule.")
        found.append(entry)
    if not MIN_ENTRIES <= len(found) <= MAX_ENTRIES:
        raise InputError(f"A race has {MIN_ENTRIES} to {MAX_ENTRIES} lanes, not {len(found)}.")
    return tuple(found)


def all_entries() -> list[Entry]:
    """Return all entries that can run here: each sampler alone, then with each schedule."""
    supported = [key for key in SAMPLERS if not unsupported(key)]
    automatic = [Entry(key) for key in supported]
    return automatic + [
        Entry(key, schedule)
        for key in supported
        for schedule in SAMPLERS[key].schedules
        if schedule != "automatic" and not unsupported(schedule)
    ]


def resolve_single(models: Models, options: GenerateOptions) -> ResolvedOptions:
    """Return resolved options of one picture, so that all entries share noise and prompt."""
    return models.resolve(options.model_copy(update={"count": 1}))


def reference_key(models: Models, options: GenerateOptions) -> tuple[Any, ...]:
    """Return all that the reference of resolved options depends on, as a key for a cache."""
    from ..prompt import resources

    ignored = {"sampler", "schedule", "steps", "count"}
    used = resources.find_resources(models, options).used
    model = models.hash, str(models.path), models.vae_name, str(models.device), str(models.dtype)
    return *model, options.model_dump_json(exclude=ignored), repr(used)


def max_calls(entries: Sequence[Entry] | Sequence[BackendPair], steps: int) -> int:
    """Return the largest number of model calls that a race takes, its reference included."""
    calls, samplers = 0, False
    for entry in entries:
        if isinstance(entry, Entry):
            calls, samplers = calls + SAMPLERS[entry.sampler].calls * steps + 1, True
        else:
            calls += steps
    return calls + REFERENCE_STEPS if samplers else calls


def distance(latents: torch.Tensor, reference: torch.Tensor) -> float:
    """Return RMS(latents - reference) / std(reference).

    0 for the same picture, about 1.4 for an unrelated one.
    """
    rms = (latents.double() - reference.double()).square().mean().sqrt()
    return float(rms / reference.double().std())


def race(
    models: Models,
    options: GenerateOptions,
    entries: Sequence[Entry],
    reference: Reference | None = None,
) -> Iterator[CallDone | EntryDone | Failed | Reference | Distances]:
    """Race samplers: yield a CallDone of each entry in turn, last the Distances of each.

    reference: known from an earlier race of the same `reference_key`; where it is not, it is drawn
    after the entries, and the distance of every CallDone is None. Closing the iterator stops all.
    """
    options = resolve_single(models, options)
    for entry in entries:
        _check_entry(models, options, entry)
    with ExitStack() as stack:
        runs = [_Run(stack, models, entry_options(options, e), i) for i, e in enumerate(entries)]
        yield from _round_robin(runs, reference)
        if reference is None:
            run = _Run(stack, models, entry_options(options, REFERENCE, REFERENCE_STEPS), None)
            for event in _round_robin([run]):
                if isinstance(event, EntryDone):
                    reference = Reference(event.result.latents[0], event.result.images[0])
                    yield reference
                else:
                    yield event
    assert reference is not None
    for i, run in enumerate(runs):
        assert run.result is not None
        distances = tuple(distance(clean, reference.latents) for clean in run.cleans)
        yield Distances(i, distances, distance(run.result.latents[0], reference.latents))


def entry_options(
    options: GenerateOptions, entry: Entry, steps: int | None = None
) -> GenerateOptions:
    """Return the options of one entry of a race. steps: None for the race's own."""
    update: dict[str, Any] = {"sampler": entry.sampler, "schedule": entry.schedule}
    return options.model_copy(update=update if steps is None else update | {"steps": steps})


def backend_pairs(models: Models) -> tuple[BackendPair, ...]:
    """Return the pairs of backends that can run here: PLAIN first, the pair of `auto` last.

    Every other attention is paired with the plain GroupNorm and the other way round, so that a
    difference has one cause.
    """
    can = {kind: models.backends.candidates(kind, "auto") for kind in KINDS}
    plain = BackendPair(**PLAIN)
    pairs = [plain]
    pairs += [BackendPair(name, plain.group_norm) for name in reversed(can["attention"])]
    pairs += [BackendPair(plain.attention, name) for name in reversed(can["group_norm"])]
    pairs.append(BackendPair(can["attention"][0], can["group_norm"][0]))
    return tuple(dict.fromkeys(pairs))


def missing_backends(models: Models) -> list[tuple[str, str, str]]:
    """Return (kind, name, reason) of each backend that does not race here."""
    return [
        (kind, name, models.backends.unsupported_reason(kind, name) or INTERPRETED)
        for kind in KINDS
        for name in KINDS[kind].table
        if name not in models.backends.candidates(kind, "auto")
    ]


def race_backends(
    models: Models, options: GenerateOptions, pairs: Sequence[BackendPair]
) -> Iterator[CallDone | EntryDone | Failed | BackendComparison]:
    """Draw the same picture on each pair of backends: yield a CallDone of each in turn.

    Last comes a BackendComparison for each pair that finished. Closing the iterator stops all.
    """
    options = resolve_single(models, options)
    with ExitStack() as stack:
        runs = []
        for i, pair in enumerate(pairs):
            own = options.model_copy(update=vars(pair))
            runs.append(_Run(stack, models, own, i, pair))
        yield from _round_robin(runs)
    done = [(i, run.times, run.result) for i, run in enumerate(runs) if run.result is not None]
    for i, times, result in done:
        baseline, _, first = done[0]
        pixels, latents = _largest_differences(result, first)
        median = statistics.median(times[1:] or times)  # of a single step there is only the first
        yield BackendComparison(i, baseline, median, pixels, latents)


def _largest_differences(one: Result, other: Result) -> tuple[int, float]:
    """Return the largest difference of two results' pixels, 0 to 255, and of their latents."""
    import numpy as np

    a, b = (np.asarray(result.images[0]).astype(int) for result in (one, other))
    return int(np.abs(a - b).max()), float((one.latents[0] - other.latents[0]).abs().max())


def _check_entry(models: Models, options: ResolvedOptions, entry: Entry) -> None:
    """Raise the InputError that an entry's sampler would raise, before any entry has started."""
    import torch

    noise, generator = torch.ones(1, 1, 1, 1), torch.Generator()
    config = models.scheduler_config
    make_sampler(entry.sampler, entry.schedule, config, noise, options.steps, generator, 0).close()


class _Run:
    """The state of one entry; `stack` closes its events. pair: the backends that it runs on."""

    def __init__(
        self,
        stack: ExitStack,
        models: Models,
        options: GenerateOptions,
        entry: int | None,
        pair: BackendPair | None = None,
    ):
        self.events = models.stream(options)
        stack.callback(self.events.close)
        self.models, self.entry, self.pair = models, entry, pair
        self.times: list[float] = []  # seconds of each call
        self.cleans: list[torch.Tensor] = []  # the predicted x0 of each call
        self.result: Result | None = None

    def advance(self, reference: Reference | None) -> CallDone | EntryDone:
        """Make one model call, or after the last one decode the picture."""
        if self.pair:  # installed before the clock runs
            with self.models.lock:
                self.models.backends.install(self.pair.attention, self.pair.group_norm)
        began = time.perf_counter()
        event = next(self.events)
        if isinstance(event, Result):
            self.result = event
            return EntryDone(self.entry, len(self.times), sum(self.times), event)
        self.times.append(time.perf_counter() - began)
        if self.pair is None:
            self.cleans.append(event.clean)
        return CallDone(
            self.entry,
            len(self.times),
            event.index,
            event.total,
            event.sigma,
            sum(self.times),
            None if reference is None else distance(event.clean, reference.latents),
            event,
        )


def _round_robin(
    runs: Sequence[_Run], reference: Reference | None = None
) -> Iterator[CallDone | EntryDone | Failed]:
    """Advance all runs in turn until each is done; a backend that fails is out."""
    left = list(runs)
    while left:
        for run in tuple(left):
            event: CallDone | EntryDone | Failed
            try:
                event = run.advance(reference)
            except InputError as error:
                if run.pair is None or run.entry is None:
                    raise
                event = Failed(run.entry, str(error))
            if not isinstance(event, CallDone):
                left.remove(run)
            yield event
