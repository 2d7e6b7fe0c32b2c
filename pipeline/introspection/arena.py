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
    """A sampler with a schedule that takes part in a race, which draws one picture with several.

    They are keys of SAMPLERS and SCHEDULES, for example "dpmpp_2m" and "karras"; "automatic" is the
    sampler's default schedule.
    """

    sampler: str
    schedule: str = "automatic"

    @property
    def label(self) -> str:
        """The name of this sampler with its schedule in A1111's style, such as "DPM++ 2M Karras".

        With the automatic schedule it is the sampler's label alone, such as "Euler a".
        """
        name = SAMPLERS[self.sampler].label
        return name if self.schedule == "automatic" else f"{name} {SCHEDULES[self.schedule].label}"

    @property
    def key(self) -> str:
        """The name of this sampler with its schedule in files and JSON, such as "dpmpp_2m-karras".

        With the automatic schedule it is the sampler's key alone, such as "euler_a".
        """
        return self.sampler if self.schedule == "automatic" else f"{self.sampler}-{self.schedule}"

    @property
    def resolved_schedule(self) -> str:
        """Key of the noise schedule that is used: the sampler's default in place of "automatic"."""
        own = SAMPLERS[self.sampler].automatic
        return own if self.schedule == "automatic" else self.schedule


REFERENCE, REFERENCE_STEPS = Entry("dpmpp_2m", "uniform"), 200


@dataclass(frozen=True)
class BackendPair:
    """An attention and a GroupNorm backend that take part in a race, which compares such pairs.

    A race draws the same picture with each pair in turn. Both are names, for example "math" and
    "torch".
    """

    attention: str
    group_norm: str

    @property
    def label(self) -> str:
        """The name of this pair that users see, attention + GroupNorm backend: "math + torch"."""
        return f"{self.attention} + {self.group_norm}"

    @property
    def key(self) -> str:
        """The pair's name in files and JSON: its attention and GroupNorm backend, "math-torch"."""
        return f"{self.attention}-{self.group_norm}"


@dataclass(frozen=True)
class CallDone:
    """Event of a race: one of its competitors has made one more model call.

    In a race several competitors draw the same picture. They are samplers, or pairs of an attention
    and a GroupNorm backend.

    entry        index of the competitor in the race; None for the reference, the almost exact
                 picture that samplers are compared with
    calls        number of model calls that it has made
    step, total  the sampling step, 1 to `total`
    sigma        the noise level of the call
    seconds      time of all its calls so far, without decoding
    distance     from the predicted clean latents to the reference's final latents: 0 if equal,
                 about 1.4 if unrelated; None without a reference, as in races of backends
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
    """Event of a race: one of the samplers or pairs of backends has finished its picture.

    In a race, several samplers, or pairs of an attention and a GroupNorm backend, draw the same
    picture in turns. The result of each has the same bits as if it had drawn alone.

    entry    index of the sampler or pair in the race; None for the reference, the almost exact
             picture that samplers are compared with
    calls    number of model calls that its picture took
    seconds  time of these calls, without decoding
    result   the picture, and how it was made
    """

    entry: int | None
    calls: int
    seconds: float
    result: Result = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """The almost exact picture of a prompt with which a race compares the samplers' pictures.

    It solves the probability flow ODE from the same noise: DPM++ 2M with 200 steps. latents: the
    final latents (1, C, h, w). image: the picture decoded from them.
    """

    latents: torch.Tensor = field(repr=False)
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Distances:
    """Event at the end of a race of samplers, which all draw one picture: how exact one of them is.

    Distances are to the final latents of the reference, DPM++ 2M with 200 steps: RMS difference
    divided by the reference's standard deviation, 0 if equal, about 1.4 if unrelated.

    entry      index of the sampler in the race
    distances  of the clean latents that each model call predicts, in order
    last       of the sampler's final latents
    """

    entry: int
    distances: tuple[float, ...]
    last: float


@dataclass(frozen=True)
class Failed:
    """Event of a race of backends: a pair of an attention and a GroupNorm backend has failed.

    In the race each pair draws the same picture. The failed one makes no more model calls. entry:
    index of the pair in the race. reason: one sentence.
    """

    entry: int
    reason: str


@dataclass(frozen=True)
class BackendComparison:
    """Event at the end of a race of backends: the speed of one pair, and how its picture differs.

    Such a race draws the same picture with several pairs of backends, one for attention and one for
    GroupNorm, and yields one such event for each pair.

    entry     index of the pair of backends in the race
    baseline  index of the pair that it is compared with
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
    """Parse names such as "DPM++ 2M Karras" or "dpmpp_2m karras" of samplers to compare in a race.

    A race draws one picture with each. Returns an Entry (sampler and schedule) for each name; one
    without a schedule gets the automatic schedule. Raises InputError for an unknown sampler, a
    sampler and schedule that cannot run here, a repeated name, and fewer than MIN_ENTRIES or more
    than MAX_ENTRIES names.
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
    """Return all samplers with all their schedules that can run here, to choose some to compare.

    First each sampler with the automatic schedule, then all other pairs of sampler and schedule.
    """
    supported = [key for key in SAMPLERS if not unsupported(key)]
    automatic = [Entry(key) for key in supported]
    return automatic + [
        Entry(key, schedule)
        for key in supported
        for schedule in SAMPLERS[key].schedules
        if schedule != "automatic" and not unsupported(schedule)
    ]


def resolve_single(models: Models, options: GenerateOptions) -> ResolvedOptions:
    """Return the options that all entries of a race share: for one picture, with a fixed seed.

    A race draws the same picture with several samplers or backends, its entries. The model's
    defaults are filled in for options that are None, and a random seed if there is none, so that
    all entries begin from the same noise.
    """
    return models.resolve(options.model_copy(update={"count": 1}))


def reference_key(models: Models, options: GenerateOptions) -> tuple[Any, ...]:
    """Return a cache key for the Reference, the almost exact picture that samplers are compared to.

    It holds everything that this picture depends on: the model, its autoencoder, device and dtype,
    the options except sampler, schedule, steps and count, and the LoRAs and embeddings. options:
    with the model's defaults filled in, as `resolve_single` returns them.
    """
    from ..prompt import resources

    ignored = {"sampler", "schedule", "steps", "count"}
    used = resources.find_resources(models, options).used
    model = models.hash, str(models.path), models.vae_name, str(models.device), str(models.dtype)
    return *model, options.model_dump_json(exclude=ignored), repr(used)


def max_calls(entries: Sequence[Entry] | Sequence[BackendPair], steps: int) -> int:
    """Return an upper limit of the UNet calls of a race, to reserve enough time for it.

    A race draws the same picture several times, each time with another sampler or another pair of
    backends (one for attention, one for GroupNorm). entries: these samplers or pairs; each takes
    `steps` sampling steps. With samplers, the 200 calls for the reference picture with which they
    are compared are included.
    """
    calls, samplers = 0, False
    for entry in entries:
        if isinstance(entry, Entry):
            calls, samplers = calls + SAMPLERS[entry.sampler].calls * steps + 1, True
        else:
            calls += steps
    return calls + REFERENCE_STEPS if samplers else calls


def distance(latents: torch.Tensor, reference: torch.Tensor) -> float:
    """Measure how far latents are from a reference: RMS(latents - reference) / std(reference).

    Both are (1, C, h, w). It is 0 for the same picture and about 1.4 for an unrelated one.
    """
    rms = (latents.double() - reference.double()).square().mean().sqrt()
    return float(rms / reference.double().std())


def race(
    models: Models,
    options: GenerateOptions,
    entries: Sequence[Entry],
    reference: Reference | None = None,
) -> Iterator[CallDone | EntryDone | Failed | Reference | Distances]:
    """Compare samplers: draw the same picture with each of them, in turns of one model call.

    Yields a CallDone after each call and an EntryDone for each finished sampler. Then, if
    `reference` is None, the reference is drawn, an almost exact picture (DPM++ 2M with 200 steps):
    its calls and a Reference are yielded. At the end comes a Distances for each sampler. Closing
    the iterator stops the work.

    options    prompt, seed, size and steps for all samplers; its sampler and schedule are ignored
    entries    the samplers, with their schedules
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
    """Return `options` with the sampler and the schedule of `entry`, to draw its picture in a race.

    steps: another number of steps; None keeps that of `options`.
    """
    update: dict[str, Any] = {"sampler": entry.sampler, "schedule": entry.schedule}
    return options.model_copy(update=update if steps is None else update | {"steps": steps})


def backend_pairs(models: Models) -> tuple[BackendPair, ...]:
    """Return the pairs of an attention and a GroupNorm backend for a race of all that can run here.

    A race draws the same picture with each pair. The first pair is PLAIN, the reference
    implementations. Then each other attention backend is paired with the plain GroupNorm, and each
    other GroupNorm backend with the plain attention, so that a difference has one cause. The last
    is the pair that "auto" selects. No pair is listed twice.
    """
    can = {kind: models.backends.candidates(kind, "auto") for kind in KINDS}
    plain = BackendPair(**PLAIN)
    pairs = [plain]
    pairs += [BackendPair(name, plain.group_norm) for name in reversed(can["attention"])]
    pairs += [BackendPair(plain.attention, name) for name in reversed(can["group_norm"])]
    pairs.append(BackendPair(can["attention"][0], can["group_norm"][0]))
    return tuple(dict.fromkeys(pairs))


def missing_backends(models: Models) -> list[tuple[str, str, str]]:
    """List the backends that cannot be compared in a race on this machine, and why.

    Returns (kind, name, reason) for each. kind: "attention" or "group_norm". reason: one sentence.
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
    """Compare backends: draw the same picture with each pair, in turns of one model call.

    A pair is an attention and a GroupNorm backend. Yields a CallDone after each call, an EntryDone
    for each pair that has its picture and a Failed for each whose backend fails. At the end comes a
    BackendComparison of each finished pair with the first of these. Closing the iterator stops the
    work.
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
    """Compare the first pictures of two Results: return their largest differences.

    Returns (largest difference of a colour value, 0 to 255; largest absolute difference of the
    final latents). It tells how much a picture changes if other attention and GroupNorm backends
    draw it.
    """
    import numpy as np

    a, b = (np.asarray(result.images[0]).astype(int) for result in (one, other))
    return int(np.abs(a - b).max()), float((one.latents[0] - other.latents[0]).abs().max())


def _check_entry(models: Models, options: ResolvedOptions, entry: Entry) -> None:
    """Raise InputError if a sampler to be compared cannot run with these options; draws nothing."""
    import torch

    noise, generator = torch.ones(1, 1, 1, 1), torch.Generator()
    config = models.scheduler_config
    make_sampler(entry.sampler, entry.schedule, config, noise, options.steps, generator, 0).close()


class _Run:
    """One competitor's drawing in a race: it is advanced by one model call at a time.

    In a race, several samplers, or pairs of an attention and a GroupNorm backend, draw the same
    picture in turns.

    stack    stops the drawing when the race ends
    options  the picture to draw, with this competitor's sampler or backends
    entry    index of the competitor in the race, None for the reference (the almost exact picture
             that samplers are compared with)
    pair     the two backends to install before each call; None in a race of samplers
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
        """Make the next UNet call for this competitor's picture and return a CallDone.

        The competitor is a sampler, or a pair of backends (one for attention, one for GroupNorm).
        If the last call has been made, decode the picture instead and return an EntryDone.
        reference: the almost exact solution; the CallDone has the distance of the predicted clean
        latents from it, or None if `reference` is None.
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
    """Run a race: all draw the same picture, one model call each in turn, until the last is done.

    Those who race are samplers, or pairs of an attention and a GroupNorm backend. Yields a CallDone
    for each call and an EntryDone for each that is done. A pair whose backend fails yields Failed
    and takes no more turns; a failing sampler raises InputError. runs: the state of each.
    reference: an almost exact picture; each CallDone then has the distance to it. None: no
    distances.
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
