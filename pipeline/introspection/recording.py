"""Recordings: all model calls of a picture, kept in bounded memory.

A Recorder passes on the events of a request and makes a Recording of each picture. branch.py
continues a Recording from any of its steps; recording_file.py writes recordings to a file.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..events import Result
from ..lru import LruCache
from ..samplers.prediction import alpha_beta, to_noise

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..events import RequestOrigin, Step
    from ..latents.initial_state import ReplayedAnswers
    from ..model import Models
    from ..options import GenerateOptions, ResolvedOptions
    from ..samplers.base import Answer

MAX_BYTES_PER_RECORDING = 256 << 20
MAX_BYTES_IN_ALL = 1 << 30  # of all recordings that a server keeps
MAX_AGE = 3600  # seconds after its last use in which a recording is dropped


@dataclass(frozen=True, eq=False)
class ModelCall:
    """One recorded UNet call of a picture, kept to show it and to continue the picture from it.

    step     index of the sampling step, from 0. In a branch, which continues another picture from
             one of its steps, it goes on from that step
    t        the timestep that the UNet was given
    sigma    the noise level of `latents`
    latents  the UNet's input (1, C, h, w)
    clean    the clean latents x0 (1, C, h, w) that its output predicts
    answer   the model output that the sampler received
    words    the words of the prompt
    maps     cross-attention maps (words, h', w') fp16, one per word, averaged over all layers; None
             if not recorded
    grids    such maps (words, h', w') fp16 for each resolution of the layers, coarsest first
    """

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
        """The predicted noise eps (1, C, h, w), of about unit variance."""
        alpha, beta = alpha_beta(self.sigma)
        return to_noise(self.latents, self.clean, alpha, beta, "sample")

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes; a tensor that two attributes share counts once."""
        tensors = [self.latents, self.clean, self.maps, *self.grids]
        tensors += [self.answer.output, self.answer.cond, self.answer.uncond]
        return sum(t.nbytes for t in {id(t): t for t in tensors if t is not None}.values())


@dataclass(frozen=True, eq=False)
class Recording:
    """All UNet calls of one picture, kept to show its steps and to continue it from any of them.

    A picture that continues another recorded picture, its parent, is called a branch.

    key            random key of the recording in a RecordingStore
    model          name and hash of the model, and the name of the autoencoder that replaces its
                   own, or None
    origin         the options, seeds and initial state of the picture
    calls          the UNet calls in order; a branch begins with the parent's calls before its step
    final          the final latents (1, C, h, w)
    image          the picture; its `info["parameters"]` is its parameters text in A1111's format
    parent_calls   number of `calls` that are the parent's
    sampler_start  the step at which its sampler began: the branch's step for a branch with another
                   sampler or schedule, else 0 (or, for a branch, that of its parent)
    reseeds        (step, seed) for each step at which the sampler's noise got a new seed
    parent         key of the parent; None for a picture that is no branch
    """

    key: str
    model: tuple[str, str, str | None]
    origin: RequestOrigin
    calls: tuple[ModelCall, ...]
    final: torch.Tensor
    image: Image.Image
    parent_calls: int = 0
    sampler_start: int = 0
    reseeds: tuple[tuple[int, int], ...] = ()
    parent: str | None = None

    @property
    def options(self) -> ResolvedOptions:
        """The options that the picture was drawn with, the model's defaults filled in."""
        return self.origin.options

    @property
    def parameters(self) -> str:
        """The picture's parameters text in A1111's format; "" if it has none."""
        return self.image.info.get("parameters", "")

    @property
    def steps(self) -> int:
        """The number of sampling steps."""
        return self.calls[-1].step + 1

    @property
    def change(self) -> Mapping[str, Any]:
        """What a branch, a picture that continues another from one of its steps, has changed.

        It is {"at": step, name of each changed option: its new value}, and {} for a picture that is
        no branch.
        """
        lineage = self.origin.initial_state.lineage
        return lineage[-1] if len(lineage) > 1 else {}

    @property
    def nbytes(self) -> int:
        """Size in bytes of its tensors, its picture and the pictures that its options hold.

        The UNet calls that it shares with its parent, the recorded picture that it continues, do
        not count.
        """
        given = [getattr(value, "image", value) for value in vars(self.options).values()]
        pictures = [self.image, *(value for value in given if hasattr(value, "getbands"))]
        pixels = sum(4 * picture.width * picture.height for picture in pictures)  # as Pillow does
        begin = [value for value in vars(self.origin.initial_state).values() if value is not None]
        calls = sum(call.nbytes for call in self.calls[self.parent_calls :])
        return calls + self.final.nbytes + pixels + sum(getattr(t, "nbytes", 0) for t in begin)

    def first_call(self, step: int) -> ModelCall:
        """Return the first recorded UNet call of a step; some samplers make several calls per step.

        step: index of the sampling step, from 0. Raises InputError for an unknown step.
        """
        for call in self.calls:
            if call.step == step:
                return call
        raise InputError(
            f"There is no step {int(step) + 1}: this picture has the steps 1 to {self.steps}."
        )

    def replayed_answers(self, step: int, reseed: int | None = None) -> ReplayedAnswers:
        """Return the recorded model outputs that bring a new run of the same sampler to `step`.

        They are sent to the sampler in place of UNet calls, so that the picture can be continued
        from `step` without drawing the earlier steps again. The result is a value for the field
        InitialState.replayed_answers: items (model outputs, seed), in order. After the outputs of
        an item, the sampler's noise gets the new seed; None for the last item. reseed: a new seed
        of the noise from `step` on; None: the noise goes on unchanged.
        """
        seeds = dict(r for r in self.reseeds if r[0] <= step)
        if reseed is not None:
            seeds[step] = reseed
        calls = [call for call in self.calls if self.sampler_start <= call.step < step]
        groups, done = [], 0
        for at in sorted(seeds):
            count = sum(call.step < at for call in calls)
            groups.append((tuple(call.answer for call in calls[done:count]), seeds[at]))
            done = count
        return (*groups, (tuple(call.answer for call in calls[done:]), None))


class Recorder:
    """Draws pictures and records their UNet calls: an iterator that passes on a request's events.

    The events, from an engine's generator, are a Step after each UNet call and at last the Result.
    After that, `recordings` holds a Recording for each picture, or None for a picture whose calls
    take more than `limit` bytes. Closing the iterator, or calling `close`, closes the events.
    """

    def __init__(
        self,
        models: Models,
        events: Generator[Step | Result],
        limit: int = MAX_BYTES_PER_RECORDING,
    ):
        self.model = models.name, models.hash, models.vae_name
        self.events, self.limit = events, limit
        self.recordings: list[Recording | None] = []
        self._calls: dict[RequestOrigin, list[ModelCall] | None] = {}
        self._bytes: dict[RequestOrigin, int] = {}

    def close(self) -> None:
        """Close the generator of the request's events, which stops drawing."""
        self.events.close()

    def __iter__(self) -> Generator[Step | Result]:
        try:
            for event in self.events:
                if isinstance(event, Result):
                    images = event.images[1:] if event.sheet else event.images
                    for picture in zip(event.origins, images, event.latents, strict=False):
                        self.recordings.append(self._finish(*picture))
                else:
                    self._add(event)
                yield event
        finally:
            self.events.close()

    def _add(self, step: Step) -> None:
        calls, call = self._calls.setdefault(step.origin, []), self._model_call(step)
        self._bytes[step.origin] = self._bytes.get(step.origin, 0) + call.nbytes
        if self._bytes[step.origin] > self.limit:
            self._calls[step.origin] = None
        elif calls is not None:
            calls.append(call)

    def _model_call(self, step: Step, offset: int = 0) -> ModelCall:
        return ModelCall(
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

    def _finish(
        self, origin: RequestOrigin, image: Image.Image, final: torch.Tensor
    ) -> Recording | None:
        calls = self._calls.get(origin)
        if not calls:
            return None
        return Recording(new_key(), self.model, origin, tuple(calls), final, image)


class RecordingStore:
    """Keeps recordings (all UNet calls of a picture) in memory, by their keys.

    At most `limit` bytes are kept: the least recently used recordings are dropped, but the one that
    was put last stays even if it alone exceeds the limit. `pipeline.lru.drop_unused` drops those
    that were not used for `max_age` seconds. Safe to use from several threads.
    """

    def __init__(self, limit: int = MAX_BYTES_IN_ALL, max_age: float = MAX_AGE):
        self.limit = limit
        self._recordings: LruCache[str, Recording] = LruCache(limit, lambda r: r.nbytes, max_age)

    @property
    def nbytes(self) -> int:
        """Size of all recordings in the store, in bytes."""
        return self._recordings.size

    def put(self, recordings: Iterable[Recording | None]) -> list[str | None]:
        """Store recordings in this order; return their keys, None for each item that is None."""
        keys: list[str | None] = []
        for recording in recordings:
            if recording is None:
                keys.append(None)
            else:
                self._recordings.put(recording.key, recording)
                keys.append(recording.key)
        return keys

    def get(self, key: Any) -> Recording | None:
        """Return the recording with this key; None if it was dropped or the key is unknown.

        key: as received from the page, so it may be of any type.
        """
        return self._recordings.get(key) if isinstance(key, str) else None


def new_key() -> str:
    """Return a random key for a recording, 16 characters that cannot be guessed."""
    return secrets.token_urlsafe(12)


def plain_options(options: GenerateOptions) -> dict[str, Any]:
    """Return those fields of `options` that differ from the defaults, to be stored as JSON.

    Fields that only a subclass of GenerateOptions has are left out.
    """
    from ..options import GenerateOptions

    fields = set(GenerateOptions.model_fields)
    return options.model_dump(mode="json", include=fields, exclude_defaults=True)
