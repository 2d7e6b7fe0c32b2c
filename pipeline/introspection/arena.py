"""Samplers racing side by side from one prompt and one noise, and backends drawing one picture.

Everyone makes one call of the model in turn, so pictures come about side by side and a busy machine
slows all alike. How far a sampler still is, is told against REFERENCE, the deterministic solution
of the same noise. Of those with 200 calls it was chosen by its `distance` to Heun with 400 on the
embedded model: DPM++ 2M and UniPC 0.001, Euler 0.004, DPM++ 2M Karras, which begins at another
noise level, 0.012.
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

FEWEST, MOST = 2, 6  # lanes of a race
# What is not meant to end where the equation leads: fresh noise on the way, or other guidance.
FRESH = frozenset(
    (
        *("ddpm", "euler_a", "dpm2_a", "dpmpp_2s_a", "dpmpp_2m_sde", "dpmpp_2m_sde_heun"),
        *("dpmpp_3m_sde", "dpmpp_sde", "lcm", "tcd", "restart"),
    )
)
ELSEWHERE = FRESH | {"ddim_cfgpp"}
PLAIN = {"attention": "math", "group_norm": "torch"}  # what other backends are compared with
INTERPRETED = "Triton only interprets it here, which would tell nothing of its speed."


@dataclass(frozen=True)
class Lane:
    """A sampler and a schedule, both as keys of the tables."""

    sampler: str
    schedule: str = "automatic"

    @property
    def label(self) -> str:
        """As A1111 writes it: "DPM++ 2M Karras", "Euler a" where the schedule is automatic."""
        name = SAMPLERS[self.sampler].label
        return name if self.schedule == "automatic" else f"{name} {SCHEDULES[self.schedule].label}"

    @property
    def key(self) -> str:
        """For the name of a file."""
        return self.sampler if self.schedule == "automatic" else f"{self.sampler}-{self.schedule}"

    @property
    def taken(self) -> str:
        """The schedule that is really taken."""
        own = SAMPLERS[self.sampler].automatic
        return own if self.schedule == "automatic" else self.schedule


REFERENCE, REFERENCE_STEPS = Lane("dpmpp_2m", "uniform"), 200


@dataclass(frozen=True)
class Rival:
    """A pair of backends."""

    attention: str
    group_norm: str

    @property
    def label(self) -> str:
        return f"{self.attention} + {self.group_norm}"

    @property
    def key(self) -> str:
        """For the name of a file."""
        return f"{self.attention}-{self.group_norm}"


@dataclass(frozen=True)
class Call:
    """A call of the model is done. lane: its place, None for the reference.

    calls, seconds: of this lane so far; decoding is not among them. step: 1..total. distance: see
    `distance`, of the picture that the lane believes in; None while the reference is not known.
    """

    lane: int | None
    calls: int
    step: int
    total: int
    sigma: float
    seconds: float
    distance: float | None = None
    view: Step | None = field(default=None, repr=False)  # its `preview` is the picture so far


@dataclass(frozen=True)
class Finish:
    """A lane has its picture, the one that the same options give when it is drawn alone."""

    lane: int
    calls: int
    seconds: float
    result: Result = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """Where the equation leads from this noise: latents (1, C, h, w), and their picture."""

    latents: torch.Tensor = field(repr=False)
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Measured:
    """How far a lane was from the reference after each call, and with its last latents."""

    lane: int
    distances: tuple[float, ...]
    last: float


@dataclass(frozen=True)
class Out:
    """A backend failed on the way; `why` is a sentence."""

    lane: int
    why: str


@dataclass(frozen=True)
class Compared:
    """What a backend took and how its picture differs from that of lane `against`.

    median: seconds a step, the first aside, which may build kernels. pixels: the largest difference
    of a colour, 0..255. latents: the largest of the last latents.
    """

    lane: int
    against: int
    median: float
    pixels: int
    latents: float


def lanes(names: Iterable[Any]) -> tuple[Lane, ...]:
    """The lanes that names mean, "DPM++ 2M Karras" or "dpmpp_2m karras"; InputError in a sentence.

    A name without a schedule takes the one that suits it, "automatic".
    """
    found: list[Lane] = []
    for name in names:
        pair = split_name(name) if isinstance(name, str) else None
        if pair is None:
            there = closest(str(name)[:100], [s.label for s in SAMPLERS.values()])
            raise InputError(f"There is no sampler {short_repr(name)}; there is {there}.")
        lane = Lane(pair[0], pair[1] or "automatic")
        reason = check_pair(lane.sampler, lane.schedule)
        reason = reason or unsupported(lane.sampler) or unsupported(lane.taken)
        if reason:
            raise InputError(reason)
        if lane in found:
            raise InputError(f"{lane.label} is in two lanes; take another sampler or schedule.")
        found.append(lane)
    if not FEWEST <= len(found) <= MOST:
        raise InputError(f"A race has {FEWEST} to {MOST} lanes, not {len(found)}.")
    return tuple(found)


def every() -> list[Lane]:
    """All lanes that can run here: each sampler as it is, then with each schedule it takes."""
    there = [key for key in SAMPLERS if not unsupported(key)]
    plain = [Lane(key) for key in there]
    return plain + [
        Lane(key, schedule)
        for key in there
        for schedule in SAMPLERS[key].schedules
        if schedule != "automatic" and not unsupported(schedule)
    ]


def settled(models, options: GenerateOptions) -> GenerateOptions:
    """One picture with nothing left open, so that all lanes have the same noise and words."""
    return models.resolve(options.model_copy(update={"count": 1}))


def key(models, options: GenerateOptions) -> tuple:
    """What the reference of settled options depends on."""
    from ..prompt import resources

    free = {"sampler", "schedule", "steps", "count"}
    used = resources.find_resources(models, options).used
    who = models.hash, str(models.path), models.vae_name, str(models.device), str(models.dtype)
    return *who, options.model_dump_json(exclude=free), repr(used)


def most_calls(given: Sequence[Lane] | Sequence[Rival], steps: int) -> int:
    """How many calls a race may take, its reference included."""
    if isinstance(given[0], Rival):
        return len(given) * steps
    return sum(SAMPLERS[lane.sampler].order * steps + 1 for lane in given) + REFERENCE_STEPS


def distance(latents: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square of the difference, in units of the reference's deviation: 0 for the same
    picture, about 1.4 for one that has nothing to do with it."""
    apart = (latents.double() - reference.double()).square().mean().sqrt()
    return float(apart / reference.double().std())


def race(
    models, options: GenerateOptions, lanes: Sequence[Lane], reference: Reference | None = None
) -> Iterator[Call | Finish | Reference | Measured]:
    """Events of a race, a Call each in turn; closing the iterator stops all.

    At last comes a Measured for each lane. Where `reference` is not known from an earlier race of
    the same `key`, it is drawn after the others, and every Call's distance is None until then.
    """
    options = settled(models, options)
    for lane in lanes:
        _check(models, options, lane)
    with ExitStack() as stack:
        runs = [_Run(stack, models, on(options, lane), i) for i, lane in enumerate(lanes)]
        yield from _rounds(runs, reference)
        if reference is None:
            alone = _Run(stack, models, on(options, REFERENCE, REFERENCE_STEPS), None)
            for event in _rounds([alone]):
                if isinstance(event, Finish):
                    reference = Reference(event.result.latents[0], event.result.images[0])
                    yield reference
                else:
                    yield event
    for i, run in enumerate(runs):
        distances = tuple(distance(clean, reference.latents) for clean in run.cleans)
        yield Measured(i, distances, distance(run.result.latents[0], reference.latents))


def on(options: GenerateOptions, lane: Lane, steps: int | None = None) -> GenerateOptions:
    """The options of one lane of settled options."""
    more = {} if steps is None else {"steps": steps}
    return options.model_copy(update={"sampler": lane.sampler, "schedule": lane.schedule} | more)


def rivals(models) -> tuple[Rival, ...]:
    """The pairs of backends that can run here, the plain one first, the one of `auto` among them.

    Each attention is paired with the plain GroupNorm and the other way round, so that a difference
    has one cause.
    """
    can = {kind: models.backends.candidates(kind, "auto") for kind in KINDS}
    plain = Rival(**PLAIN)
    pairs = [plain]
    pairs += [Rival(name, plain.group_norm) for name in reversed(can["attention"])]
    pairs += [Rival(plain.attention, name) for name in reversed(can["group_norm"])]
    pairs.append(Rival(can["attention"][0], can["group_norm"][0]))
    return tuple(dict.fromkeys(pairs))


def absent(models) -> list[tuple[str, str, str]]:
    """(kind, name, sentence) of each backend that does not race here."""
    return [
        (kind, name, models.backends.unsupported_reason(kind, name) or INTERPRETED)
        for kind in KINDS
        for name in KINDS[kind].table
        if name not in models.backends.candidates(kind, "auto")
    ]


def race_backends(
    models, options: GenerateOptions, rivals: Sequence[Rival]
) -> Iterator[Call | Finish | Out | Compared]:
    """The same picture on each pair of backends, a Call each in turn, at last a Compared for each
    that finished; closing the iterator stops all."""
    options = settled(models, options)
    with ExitStack() as stack:
        runs = []
        for i, rival in enumerate(rivals):
            asked = options.model_copy(update=vars(rival))
            runs.append(_Run(stack, models, asked, i, rival))
        yield from _rounds(runs)
    done = [(i, run) for i, run in enumerate(runs) if run.result is not None]
    for i, run in done:
        against, first = done[0]
        pixels, latents = _apart(run.result, first.result)
        # Of one step alone the first is all there is.
        median = statistics.median(run.times[1:] or run.times)
        yield Compared(i, against, median, pixels, latents)


def _apart(one: Result, other: Result) -> tuple[int, float]:
    """The largest differences of two results' pixels and latents."""
    import numpy as np

    a, b = (np.asarray(result.images[0]).astype(int) for result in (one, other))
    return int(np.abs(a - b).max()), float((one.latents[0] - other.latents[0]).abs().max())


def _check(models, options: GenerateOptions, lane: Lane) -> None:
    """InputError for what the first call would find out, before anyone has begun."""
    import torch

    noise, generator = torch.ones(1, 1, 1, 1), torch.Generator()
    config = models.scheduler_config
    make_sampler(lane.sampler, lane.schedule, config, noise, options.steps, generator, 0).close()


class _Run:
    """A lane on its way; `stack` closes it. rival: the backends that it is to run on."""

    def __init__(self, stack, models, options, lane: int | None, rival: Rival | None = None):
        self.events = models.stream(options)
        stack.callback(self.events.close)
        self.models, self.lane, self.rival = models, lane, rival
        self.times: list[float] = []  # seconds of each call
        self.cleans: list[torch.Tensor] = []  # what it believed in
        self.result: Result | None = None

    def turn(self, reference: Reference | None) -> Call | Finish:
        """One call of the model, or after the last the decoding."""
        if self.rival:  # put into place before the clock runs
            with self.models.lock:
                self.models.backends.install(self.rival.attention, self.rival.group_norm)
        began = time.perf_counter()
        event = next(self.events)
        if isinstance(event, Result):
            self.result = event
            return Finish(self.lane, len(self.times), sum(self.times), event)
        self.times.append(time.perf_counter() - began)
        if self.rival is None:
            self.cleans.append(event.clean)
        return Call(
            self.lane,
            len(self.times),
            event.index,
            event.total,
            event.sigma,
            sum(self.times),
            None if reference is None else distance(event.clean, reference.latents),
            event,
        )


def _rounds(runs: Sequence[_Run], reference: Reference | None = None):
    """Everyone's turns, round by round; a backend that fails is out."""
    left = list(runs)
    while left:
        for run in tuple(left):
            try:
                event = run.turn(reference)
            except InputError as error:
                if run.rival is None:
                    raise
                event = Out(run.lane, str(error))
            if not isinstance(event, Call):
                left.remove(run)
            yield event
