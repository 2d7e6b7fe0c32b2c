"""What happened while a picture came about, kept to be looked at, gone on from and exported.

A Recording holds every call of the model: what it saw, what it said, where the words went. `Watch`
makes them of a request's events, `Branch` goes on from any step with something changed,
`Recordings` keeps as many as fit into a bounded memory; recording_file.py carries them in a file.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest
from ..events import Result
from ..samplers.prediction import alpha_beta, to_noise

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..events import RequestOrigin, Step
    from ..latents.initial_state import Past, Start
    from ..options import GenerateOptions
    from ..samplers.base import Answer

# What a branch may change; `noise_seed` is that of the noise which the sampler adds from there on.
CHANGES = ("prompt", "negative", "sampler", "schedule", "cfg", "cfg_rescale", "noise_seed")
EACH = 256 << 20  # bytes that one picture's recording may take
ALL = 1 << 30  # bytes of all that a server keeps


@dataclass(frozen=True, eq=False)
class Moment:
    """One call of the model. step: the user's, from 0, over the whole way of the picture; latents
    (1, C, h, w) are what it saw, clean what it took them for; maps and grids: see engine.Step."""

    step: int
    t: float
    sigma: float
    latents: torch.Tensor
    clean: torch.Tensor
    answer: Answer
    words: tuple[str, ...] = ()
    maps: torch.Tensor | None = None
    grids: tuple[torch.Tensor, ...] = ()

    @property
    def noise(self) -> torch.Tensor:
        """What of the latents the model takes for noise, in units of the noise's deviation."""
        alpha, beta = alpha_beta(self.sigma)
        return to_noise(self.latents, self.clean, alpha, beta, "sample")

    @property
    def nbytes(self) -> int:
        parts = [self.latents, self.clean, self.maps, *self.grids]
        parts += [self.answer.output, self.answer.cond, self.answer.uncond]
        return sum(p.nbytes for p in {id(p): p for p in parts if p is not None}.values())


@dataclass(frozen=True, eq=False)
class Recording:
    """The way of one picture.

    key       what it is called where it is kept
    model     name and hash of the model that drew it, and its autoencoder if that is another's
    moments   all calls in their order, those before a branch too
    before    how many of the moments are its parent's
    first     the step at which its own sampler began: 0 but where a branch took another sampler
    reseeds   (step, seed) where the sampler's noise was given another seed
    image     the picture, with its parameters text in `info`
    parent    the key of the recording whose branch it is
    """

    key: str
    model: tuple[str, str, str | None]
    origin: RequestOrigin
    moments: tuple[Moment, ...]
    final: torch.Tensor
    image: Image.Image
    before: int = 0
    first: int = 0
    reseeds: tuple[tuple[int, int], ...] = ()
    parent: str | None = None

    @property
    def options(self) -> GenerateOptions:
        return self.origin.options

    @property
    def parameters(self) -> str:
        return self.image.info.get("parameters", "")

    @property
    def steps(self) -> int:
        """How many of the user's steps there are."""
        return self.moments[-1].step + 1

    @property
    def change(self) -> Mapping[str, Any]:
        """Of a branch: {"at": step, what changed: its new value}."""
        lineage = self.origin.start.lineage
        return lineage[-1] if len(lineage) > 1 else {}

    @property
    def nbytes(self) -> int:
        return sum(m.nbytes for m in self.moments[self.before :]) + self.final.nbytes

    def at_step(self, step: int) -> Moment:
        """The first call of a step; InputError where there is no such step."""
        for moment in self.moments:
            if moment.step == step:
                return moment
        raise InputError(
            f"There is no step {int(step) + 1}: this picture has the steps 1 to {self.steps}."
        )

    def past(self, step: int, reseed: int | None = None) -> Past:
        """What its sampler was told before `step`, and the seeds of its noise up to there."""
        seeds = dict(r for r in self.reseeds if r[0] <= step)
        if reseed is not None:
            seeds[step] = reseed
        told = [m for m in self.moments if self.first <= m.step < step]
        out, done = [], 0
        for at in sorted(seeds):
            count = sum(m.step < at for m in told)
            out.append((tuple(m.answer for m in told[done:count]), seeds[at]))
            done = count
        return (*out, (tuple(m.answer for m in told[done:]), None))


class Watch:
    """The events of a request, passed on; once they ended, `recordings` has one for each picture,
    None where it took too much memory (`limit` bytes). Closing the iterator closes the events."""

    def __init__(self, models: Any, events: Iterator[Step | Result], limit: int = EACH):
        self.model = models.name, models.hash, models.vae_name
        self.events, self.limit = events, limit
        self.recordings: list[Recording | None] = []
        self._moments: dict[RequestOrigin, list[Moment] | None] = {}
        self._bytes: dict[RequestOrigin, int] = {}

    def close(self) -> None:
        self.events.close()

    def __iter__(self) -> Iterator[Step | Result]:
        try:
            for event in self.events:
                if isinstance(event, Result):
                    images = event.images[1:] if event.sheet else event.images
                    for way in zip(event.origins, images, event.latents, strict=False):
                        self.recordings.append(self._whole(*way))
                else:
                    self._add(event)
                yield event
        finally:
            self.events.close()

    def _add(self, step: Step) -> None:
        way, moment = self._moments.setdefault(step.origin, []), self._moment(step)
        self._bytes[step.origin] = self._bytes.get(step.origin, 0) + moment.nbytes
        if self._bytes[step.origin] > self.limit:
            self._moments[step.origin] = None
        elif way is not None:
            way.append(moment)

    def _moment(self, step: Step, offset: int = 0) -> Moment:
        return Moment(
            step=step.origin_step + offset,
            t=step.t,
            sigma=step.sigma,
            latents=step.latents,
            clean=step.clean,
            answer=step.answer,
            words=step.words,
            maps=None if step.maps is None else step.maps.half(),
            grids=tuple(g.half() for g in step.grids),
        )

    def _whole(
        self, origin: RequestOrigin, image: Image.Image, final: torch.Tensor
    ) -> Recording | None:
        moments = self._moments.get(origin)
        if not moments:
            return None
        return Recording(_key(), self.model, origin, tuple(moments), final, image)


class Branch(Watch):
    """The events of a picture that goes on from `step` (from 0) of a recording with `changes`, as
    if it had never stopped; `recordings` holds the one that comes of it.

    Prompt, guidance and the noise's seed change what the same sampler hears from there on. Another
    sampler or schedule begins afresh with the latents alone, at its own step whose noise level is
    nearest; what the model took for noise is brought to that level. InputError in one sentence for
    a step that there is not, a sampler that cannot begin there, another model, a wrong value.
    """

    def __init__(
        self, models: Any, recording: Recording, step: int, changes: Mapping[str, Any], **more: Any
    ):
        from .. import engine
        from ..metadata import receipt

        self.parent, self.step = recording, _step(step)
        options, seed = changed(recording, changes)
        moment = recording.at_step(self.step)
        if (models.name, models.hash, models.vae_name) != recording.model:
            raise InputError(
                f"This picture was drawn by {' '.join(filter(None, recording.model))}, not by"
                f" {' '.join(filter(None, (models.name, models.hash, models.vae_name)))}: only its"
                " own model can go on."
            )
        self.afresh = any(
            getattr(options, name) != getattr(recording.options, name)
            for name in ("sampler", "schedule")
        )
        if self.step < recording.first:
            raise InputError(
                f"Step {self.step + 1} is of the picture that this is a branch of: go on from that."
            )
        start = recording.origin.start
        if start.begin < 0:
            raise InputError(
                "This picture began from another one, which its file does not hold: it can be"
                " looked at, but not gone on from."
            )
        if self.afresh:
            again = (((), seed),) if seed is not None else ()
            start = replace(start, clean=moment.clean, noise=moment.noise, past=again)
            start = replace(start, begin=_nearest(models, options, start, moment.sigma))
        else:
            start = replace(start, past=recording.past(self.step, seed))
        self.reseeds = tuple(r for r in recording.reseeds if r[0] <= self.step)
        self.reseeds = () if self.afresh else self.reseeds
        if seed is not None:
            self.reseeds += ((self.step, seed),)
        different = _different(recording, options, seed)
        root = start.lineage or (described(recording.options),)
        fields = {**start.fields, "Branch step": self.step + 1}
        fields |= {"Branch changes": "; ".join(different) or None, "Noise seed": seed}
        lineage = (*root, {"at": self.step, **different})
        start = replace(start, lineage=lineage, fields=fields)
        events = engine.stream(models, options, words=True, starts=lambda _: start)
        parent = receipt.of(recording.image)
        if parent:
            before = len(parent.steps) - 1 - recording.steps  # of another pass, before the first
            branch = {"parent": parent, "at": max(0, before + self.step), "change": lineage[-1]}
            events = receipt.signed(models, events, "branch", options, **branch)
        super().__init__(models, events, **more)

    def _moment(self, step: Step, offset: int = 0) -> Moment:
        return super()._moment(step, self.step if self.afresh else self.parent.first)

    def _whole(self, origin, image, final) -> Recording | None:
        made = super()._whole(origin, image, final)
        if made is None:
            return None
        before = tuple(m for m in self.parent.moments if m.step < self.step)
        return replace(
            made,
            moments=before + made.moments,
            before=len(before),
            first=self.step if self.afresh else self.parent.first,
            reseeds=self.reseeds,
            parent=self.parent.key,
        )


def described(options: GenerateOptions) -> dict[str, Any]:
    """Resolved options as plain values, those of GenerateOptions alone, defaults left out."""
    from ..options import GenerateOptions

    fields = set(GenerateOptions.model_fields)
    return options.model_dump(mode="json", include=fields, exclude_defaults=True)


def changed(recording: Recording, changes: Mapping[str, Any]) -> tuple[GenerateOptions, int | None]:
    """The options of a branch, and the seed of its noise where that is another; what is None or as
    it was is no change. InputError for what cannot be changed or has a wrong value."""
    from ..options import MAX_SEED, GenerateOptions, whole_number
    from ..samplers import check_pair

    given = {name: value for name, value in changes.items() if value is not None}
    for name in given:
        if name not in CHANGES:
            raise InputError(
                f"A branch cannot change {name[:100]}; it can change {closest(name, CHANGES)}."
            )
    seed = given.pop("noise_seed", None)
    if seed is not None:
        try:
            seed = whole_number("noise_seed", seed, 0, MAX_SEED)
        except ValueError as error:
            raise InputError(f"N{str(error)[1:]}") from None
    checked = GenerateOptions(**given)
    update = {name: getattr(checked, name) for name in given}
    first, second = recording.origin.seeds
    alone = {"count": 1, "seed": first, "variation_seed": second}
    options = recording.options.model_copy(update=alone | update)
    reason = check_pair(options.sampler, options.schedule)
    if reason and "schedule" not in given:
        options, reason = options.model_copy(update={"schedule": "automatic"}), None
    if reason:
        raise InputError(reason)
    return options, seed


def _different(recording: Recording, options: GenerateOptions, seed: int | None) -> dict[str, Any]:
    names = [name for name in CHANGES if name != "noise_seed"]
    found = {
        name: getattr(options, name)
        for name in names
        if getattr(options, name) != getattr(recording.options, name)
    }
    return found if seed is None else found | {"noise_seed": seed}


def _step(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, (int, float)) or step != step // 1:
        raise InputError(f"A step is a whole number, not {str(step)[:40]!r}.")
    return int(step)


def _nearest(models: Any, options: GenerateOptions, start: Start, sigma: float) -> int:
    """The step of the options' sampler whose noise level is nearest to `sigma`, in ratio."""
    import math

    import torch

    from ..samplers import SAMPLERS
    from ..samplers import start as begun

    best, distance = 0, math.inf
    for step in range(options.steps):
        generator = torch.Generator().manual_seed(0)
        given = models.scheduler_config, start.noise, options.steps, generator, 0
        try:
            way = begun(options.sampler, options.schedule, *given, begin=step, clean=start.clean)
        except InputError as error:
            able = next(s for s in ("euler", "ddim") if s != options.sampler)
            raise InputError(f"{error} {SAMPLERS[able].label} can begin here.") from None
        level = float(next(way).sigma)
        way.close()
        off = abs(math.log(max(level, 1e-9) / sigma))
        if off >= distance:
            break
        best, distance = step, off
    return best


class Recordings:
    """Recordings by their keys; where they take more than `limit` bytes, those that were used
    longest ago are dropped. Safe to use from several threads."""

    def __init__(self, limit: int = ALL):
        self.limit = limit
        self._kept: OrderedDict[str, Recording] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(r.nbytes for r in self._kept.values())

    def put(self, recordings: Iterable[Recording | None]) -> list[str | None]:
        """Their keys; None for those that are None."""
        keys: list[str | None] = []
        with self._lock:
            for recording in recordings:
                keys.append(recording and recording.key)
                if recording is not None:
                    self._kept[recording.key] = recording
            total = sum(r.nbytes for r in self._kept.values())
            while total > self.limit and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].nbytes
        return keys

    def get(self, key: Any) -> Recording | None:
        """None where it was dropped, or never was."""
        with self._lock:
            if not isinstance(key, str) or key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]


def _key() -> str:
    return secrets.token_urlsafe(12)


class Remake(Watch):
    """The events of a picture made again from its lineage, see start.Start: the Steps of the first
    picture and of each branch, then the last Result.

    key, parent: of the recording that comes of it, where they are known.
    """

    def __init__(
        self,
        models: Any,
        lineage: Iterable[Mapping[str, Any]],
        key: str | None = None,
        parent: str | None = None,
    ):
        from ..options import GenerateOptions

        first, *self.branches = lineage
        options = GenerateOptions(**first)
        super().__init__(models, models.stream(options, words=True))
        self.models, self.named = models, {"key": key, "parent": parent}

    def __iter__(self) -> Iterator[Step | Result]:
        watch, left = Watch(self.models, self.events, self.limit), list(self.branches)
        while True:
            try:
                for event in watch:
                    if not isinstance(event, Result):
                        yield event
            finally:
                watch.close()
            made = watch.recordings[0]
            if made is None or not left:
                break
            change = dict(left.pop(0))
            watch = Branch(self.models, made, change.pop("at"), change, limit=self.limit)
        if made is not None:
            made = replace(made, **{k: v for k, v in self.named.items() if v is not None})
        self.recordings = [made]
        yield event
