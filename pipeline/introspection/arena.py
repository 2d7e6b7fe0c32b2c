"""Compare samplers from the same prompt and noise, or backends on the same picture, in a race.

All entries of a race take turns, one model call each, so that a busy machine slows all of them
equally. A sampler's error is the `distance` of its latents to those of REFERENCE, an almost exact
solution of the probability-flow ODE from the same noise. REFERENCE was chosen by its distance to
Heun with 400 calls, on the model that comes with this program. With 200 calls it is 0.001 for
DPM++ 2M and UniPC, 0.004 for Euler, and 0.012 for DPM++ 2M Karras, which starts at another noise
level.
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
    """A sampler and a schedule that take part in a race, as keys of SAMPLERS and SCHEDULES.

    For example "dpmpp_2m" and "karras"; "automatic" is the sampler's default schedule.
    """

    sampler: str
    schedule: str = "automatic"

    @property
    def label(self) -> str:
        """The name in A1111's style, such as "DPM++ 2M Karras".

        With the automatic schedule it is the sampler's label alone, such as "Euler a".
        """
        name = SAMPLERS[self.sampler].label
        return name if self.schedule == "automatic" else f"{name} {SCHEDULES[self.schedule].label}"

    @property
    def key(self) -> str:
        """The name for files and JSON: "dpmpp_2m-karras"; "euler_a" with the automatic schedule."""
        return self.sampler if self.schedule == "automatic" else f"{self.sampler}-{self.schedule}"

    @property
    def resolved_schedule(self) -> str:
        """Key of the schedule that is used; it replaces "automatic" by the sampler's default."""
        own = SAMPLERS[self.sampler].automatic
        return own if self.schedule == "automatic" else self.schedule


REFERENCE, REFERENCE_STEPS = Entry("dpmpp_2m", "uniform"), 200


@dataclass(frozen=True)
class BackendPair:
    """An attention and a GroupNorm backend, by name, that take part in a race of backends.

    For example "math" and "torch".
    """

    attention: str
    group_norm: str

    @property
    def label(self) -> str:
        """The name shown to users: "math + torch"."""
        return f"{self.attention} + {self.group_norm}"

    @property
    def key(self) -> str:
        """The name for files and JSON: "math-torch"."""
        return f"{self.attention}-{self.group_norm}"


@dataclass(frozen=True)
class CallDone:
    """The event of a race after one model call of one entry.

    entry        index of the entry, None for the reference
    calls        number of model calls that this entry has made
    step, total  the sampling step, 1 to `total`
    sigma        the noise level of the call
    seconds      time of all calls of this entry so far, without decoding
    distance     `distance` of the predicted clean latents to the reference; None if there is no
                 reference yet, and in races of backends
    event        the engine's Step; its `preview` is a coarse picture of the predicted latents
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
    """The event of a race when an entry has its picture, which equals that drawn without a race.

    entry    index of the entry, None for the reference
    calls    number of model calls that it has made
    seconds  time of all its calls, without decoding
    """

    entry: int | None
    calls: int
    seconds: float
    result: Result = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """An almost exact solution of the ODE, with which the samplers of a race are compared.

    It is drawn by REFERENCE, DPM++ 2M with 200 steps. latents: the final latents (1, C, h, w).
    image: the picture decoded from them.
    """

    latents: torch.Tensor = field(repr=False)
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Distances:
    """An event at the end of a race of samplers: how far one entry is from the reference.

    entry      index of the entry
    distances  `distance` of the predicted clean latents of each model call to the reference's final
               latents, in order
    last       `distance` of the entry's final latents
    """

    entry: int
    distances: tuple[float, ...]
    last: float


@dataclass(frozen=True)
class Failed:
    """The event of a race when a backend fails; the entry takes no more turns.

    entry: index of the entry. reason: one sentence.
    """

    entry: int
    reason: str


@dataclass(frozen=True)
class BackendComparison:
    """An event at the end of a race of backends: an entry's speed, and how its picture differs.

    entry     index of the entry
    baseline  index of the entry that it is compared with
    median    median seconds per model call; the first call is left out, as it may compile kernels
    pixels    largest difference of a colour value to the baseline's picture, 0 to 255
    latents   largest absolute difference to the baseline's final latents
    """

    entry: int
    baseline: int
    median: float
    pixels: int
    latents: float


def parse_entries(names: Iterable[Any]) -> tuple[Entry, ...]:
    """Parse names such as "DPM++ 2M Karras" or "dpmpp_2m karras" to the entries of a race.

    A name without a schedule gets the automatic schedule. Raises InputError for an unknown sampler,
    a sampler and schedule that cannot run here, a repeated entry, and a wrong number of entries
    (MIN_ENTRIES to MAX_ENTRIES).
    """
    entries: list[Entry] = []
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
        if entry in entries:
            raise InputError(f"{entry.label} is in two lanes; take another sampler or schedule.")
        entries.append(entry)
    if not MIN_ENTRIES <= len(entries) <= MAX_ENTRIES:
        raise InputError(f"A race has {MIN_ENTRIES} to {MAX_ENTRIES} lanes, not {len(entries)}.")
    return tuple(entries)


def all_entries() -> list[Entry]:
    """Return all entries that can run here: each sampler with the automatic schedule, then all
    other pairs of sampler and schedule."""
    supported = [key for key in SAMPLERS if not unsupported(key)]
    automatic = [Entry(key) for key in supported]
    return automatic + [
        Entry(key, schedule)
        for key in supported
        for schedule in SAMPLERS[key].schedules
        if schedule != "automatic" and not unsupported(schedule)
    ]


def resolve_single(models: Models, options: GenerateOptions) -> ResolvedOptions:
    """Return resolved options with count 1 and a fixed seed, so that all entries share the noise.

    "Resolved" means that every None is replaced by the model's default, see Models.resolve.
    """
    return models.resolve(options.model_copy(update={"count": 1}))


def reference_key(models: Models, options: GenerateOptions) -> tuple[Any, ...]:
    """Return a cache key for the Reference that belongs to resolved options.

    It holds everything that the Reference depends on: the model, its autoencoder, device and dtype,
    the options except sampler, schedule, steps and count, and the LoRAs and embeddings.
    """
    from ..prompt import resources

    ignored = {"sampler", "schedule", "steps", "count"}
    used = resources.find_resources(models, options).used
    model = models.hash, str(models.path), models.vae_name, str(models.device), str(models.dtype)
    return *model, options.model_dump_json(exclude=ignored), repr(used)


def max_calls(entries: Sequence[Entry] | Sequence[BackendPair], steps: int) -> int:
    """Return an upper limit of the model calls of a race, those of the reference included.

    steps: number of sampling steps of each entry.
    """
    calls, samplers = 0, False
    for entry in entries:
        if isinstance(entry, Entry):
            calls, samplers = calls + SAMPLERS[entry.sampler].calls * steps + 1, True
        else:
            calls += steps
    return calls + REFERENCE_STEPS if samplers else calls


def distance(latents: torch.Tensor, reference: torch.Tensor) -> float:
    """Return RMS(latents - reference) / std(reference), for two tensors (1, C, h, w).

    It is 0 for the same picture and about 1.4 for an unrelated one.
    """
    rms = (latents.double() - reference.double()).square().mean().sqrt()
    return float(rms / reference.double().std())


def race(
    models: Models,
    options: GenerateOptions,
    entries: Sequence[Entry],
    reference: Reference | None = None,
) -> Iterator[CallDone | EntryDone | Failed | Reference | Distances]:
    """Race samplers. The entries take turns; each turn is one model call and yields a CallDone.

    An entry that is finished yields EntryDone. At the end come, if `reference` is None, the calls
    of the reference and a Reference, then a Distances for each entry. Closing the iterator stops
    the work.

    options    prompt, seed, size and steps for all entries; sampler and schedule are ignored
    reference  the Reference of an earlier race with the same `reference_key`. Without it the
               `distance` of every CallDone is None

    Raises InputError, before any model call, for a sampler that cannot run with these options.
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
    """Return `options` with the sampler and the schedule of `entry`, and other `steps` if given."""
    update: dict[str, Any] = {"sampler": entry.sampler, "schedule": entry.schedule}
    return options.model_copy(update=update if steps is None else update | {"steps": steps})


def backend_pairs(models: Models) -> tuple[BackendPair, ...]:
    """Return the entries for a race of all backends that can run here.

    The first is PLAIN, the reference implementations. Then each other attention backend is paired
    with the plain GroupNorm, and each other GroupNorm backend with the plain attention, so that a
    difference has one cause. The last is the pair that "auto" selects.
    """
    can = {kind: models.backends.candidates(kind, "auto") for kind in KINDS}
    plain = BackendPair(**PLAIN)
    pairs = [plain]
    pairs += [BackendPair(name, plain.group_norm) for name in reversed(can["attention"])]
    pairs += [BackendPair(plain.attention, name) for name in reversed(can["group_norm"])]
    pairs.append(BackendPair(can["attention"][0], can["group_norm"][0]))
    return tuple(dict.fromkeys(pairs))


def missing_backends(models: Models) -> list[tuple[str, str, str]]:
    """Return (kind, name, reason) for each backend that cannot take part in a race here.

    kind: "attention" or "group_norm". reason: one sentence.
    """
    return [
        (kind, name, models.backends.unsupported_reason(kind, name) or INTERPRETED)
        for kind in KINDS
        for name in KINDS[kind].table
        if name not in models.backends.candidates(kind, "auto")
    ]


def race_backends(
    models: Models, options: GenerateOptions, pairs: Sequence[BackendPair]
) -> Iterator[CallDone | EntryDone | Failed | BackendComparison]:
    """Race backends: draw the same picture with each pair. The pairs take turns.

    Each turn is one model call and yields a CallDone. A pair that is finished yields EntryDone, one
    whose backend fails yields Failed. At the end comes a BackendComparison for each finished pair,
    with the first of these as baseline. Closing the iterator stops the work.
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
    """Return the largest difference of two Results' first pictures, as (pixels, latents).

    pixels: of a colour value, 0 to 255. latents: of the final latents, absolute.
    """
    import numpy as np

    a, b = (np.asarray(result.images[0]).astype(int) for result in (one, other))
    return int(np.abs(a - b).max()), float((one.latents[0] - other.latents[0]).abs().max())


def _check_entry(models: Models, options: ResolvedOptions, entry: Entry) -> None:
    """Raise InputError if the entry's sampler cannot run with these options; draws nothing."""
    import torch

    noise, generator = torch.ones(1, 1, 1, 1), torch.Generator()
    config = models.scheduler_config
    make_sampler(entry.sampler, entry.schedule, config, noise, options.steps, generator, 0).close()


class _Run:
    """The running state of one entry of a race.

    stack  closes the entry's events when the race ends
    entry  index of the entry, None for the reference
    pair   the backends of the entry in a race of backends; None in a race of samplers
    """

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
        """Make one model call and return a CallDone; after the last call decode the picture.

        reference: for the `distance` of the CallDone.
        """
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
    """Advance the entries of a race in turns until all are done; yield the events.

    runs: the running state of each entry. reference: for the `distance` of the CallDones. An entry
    of a race of backends whose backend fails yields Failed and takes no more turns; in a race of
    samplers InputError is passed on.
    """
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
