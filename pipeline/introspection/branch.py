"""Branches: continue a recorded picture from one of its steps with other options.

Also draws a picture again from its lineage: the options of the first picture, and the changes of
each branch that led to it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest
from ..events import Result
from .recording import ModelCall, Recorder, Recording, plain_options

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..events import RequestOrigin, Step
    from ..latents.initial_state import InitialState
    from ..model import Models
    from ..options import ResolvedOptions

# The options that a branch may change. noise_seed: a new seed for the noise that the sampler adds
# from the branch's step on.
CHANGES = ("prompt", "negative", "sampler", "schedule", "cfg", "cfg_rescale", "noise_seed")


class BranchRun(Recorder):
    """A branch: draws on from one step of a recorded picture, with other options.

    Iterating it yields the engine's events, a Step for each model call from that step on and at
    last the Result; afterwards `recordings` holds the branch's Recording. With the same sampler and
    schedule, the recorded model outputs of the earlier steps are sent to the sampler again, so that
    the result is the same as without interruption. With another sampler or schedule, sampling
    begins from the predicted clean latents of the step, with its predicted noise, at the new
    sampler's step with the nearest noise level.

    models     the model that drew the picture
    recording  the recorded picture
    step       index of the step, from 0
    changes    {option: new value} for options in CHANGES: prompt, negative, sampler, schedule, cfg,
               cfg_rescale and noise_seed; None as a value changes nothing
    limit      bytes that the branch's recorded model calls may take; above, none is kept

    Raises InputError for a step that the picture does not have, a sampler that cannot begin there,
    another model or a wrong value.
    """

    def __init__(
        self,
        models: Models,
        recording: Recording,
        step: int,
        changes: Mapping[str, Any],
        **limit: int,
    ):
        from .. import engine
        from ..metadata import receipt

        self.parent, self.step = recording, _whole_step(step)
        options, noise_seed = resolve_changes(recording, changes)
        self._check_model(models)
        self.new_sampler = any(
            getattr(options, name) != getattr(recording.options, name)
            for name in ("sampler", "schedule")
        )
        start = self._start(models, options, noise_seed)
        different = _differences(recording, options, noise_seed)
        root = start.lineage or (plain_options(recording.options),)
        fields = {**start.fields, "Branch step": self.step + 1}
        fields |= {"Branch changes": "; ".join(different) or None, "Noise seed": noise_seed}
        lineage = (*root, {"at": self.step, **different})
        start = replace(start, lineage=lineage, fields=fields)
        events = engine.stream(models, options, words=True, initial_states=lambda _: start)
        parent = receipt.from_image(recording.image)
        if parent:
            first_pass = len(parent.steps) - 1 - recording.steps  # steps of a pass before
            at = max(0, first_pass + self.step)
            events = models.sign(
                events, "branch", options, parent=parent, at=at, change=lineage[-1]
            )
        super().__init__(models, events, **limit)

    def _check_model(self, models: Models) -> None:
        drawn_by, here = self.parent.model, (models.name, models.hash, models.vae_name)
        if here != drawn_by:
            raise InputError(
                f"This picture was drawn by {' '.join(filter(None, drawn_by))}, not by"
                f" {' '.join(filter(None, here))}: only its own model can go on."
            )

    def _start(
        self, models: Models, options: ResolvedOptions, noise_seed: int | None
    ) -> InitialState:
        """Return the state from which the engine draws a branch of the recorded picture.

        A branch continues the picture from one of its steps with changed options. The state has the
        latents and noise to begin from or, if sampler and schedule stay, the recorded UNet outputs
        of the earlier steps. options: those of the branch. noise_seed: a new seed for the noise
        that the sampler adds, None to keep the old. Also sets `self.reseeds`: (step, seed) wherever
        that noise gets a new seed. Raises InputError for a step that cannot be continued from.
        """
        parent, step = self.parent, self.step
        call, start = parent.first_call(step), parent.origin.initial_state
        if step < parent.sampler_start:
            raise InputError(
                f"Step {step + 1} is of the picture that this is a branch of: go on from that."
            )
        if start.start_step < 0:
            raise InputError(
                "This picture began from another one, which its file does not hold: it can be"
                " looked at, but not gone on from."
            )
        self.reseeds: tuple[tuple[int, int], ...] = ()
        if self.new_sampler:
            again = (((), noise_seed),) if noise_seed is not None else ()
            start = replace(start, clean=call.clean, noise=call.noise, replayed_answers=again)
            start = replace(start, start_step=_nearest_step(models, options, start, call.sigma))
        else:
            start = replace(start, replayed_answers=parent.replayed_answers(step, noise_seed))
            self.reseeds = tuple(r for r in parent.reseeds if r[0] <= step)
        if noise_seed is not None:
            self.reseeds += ((step, noise_seed),)
        return start

    def _model_call(self, step: Step, offset: int = 0) -> ModelCall:
        return super()._model_call(step, self._sampler_start)

    @property
    def _sampler_start(self) -> int:
        return self.step if self.new_sampler else self.parent.sampler_start

    def _finish(
        self, origin: RequestOrigin, image: Image.Image, final: torch.Tensor
    ) -> Recording | None:
        made = super()._finish(origin, image, final)
        if made is None:
            return None
        before = tuple(call for call in self.parent.calls if call.step < self.step)
        return replace(
            made,
            calls=before + made.calls,
            parent_calls=len(before),
            sampler_start=self._sampler_start,
            reseeds=self.reseeds,
            parent=self.parent.key,
        )


class ReplayRun(Recorder):
    """Draws again a picture that was made by branches, for example because its recording is gone.

    A branch continues a recorded picture from one of its steps, with changed options. So the first
    picture is drawn again, then each branch in turn. Iterating a ReplayRun yields the Steps of all
    of them, then the Result of the last; afterwards `recordings` holds its Recording, or None if a
    recording takes more than `limit` bytes.

    lineage      the options of the first picture, then {"at": step from 0, changed options} of each
                 branch that led to the picture
    key, parent  the key that the new Recording shall have, and that of its parent, the picture that
                 it continues; None: as the drawing sets them
    """

    def __init__(
        self,
        models: Models,
        lineage: Iterable[Mapping[str, Any]],
        key: str | None = None,
        parent: str | None = None,
    ):
        from ..options import GenerateOptions

        first, *self.branches = lineage
        options = GenerateOptions(**first)
        super().__init__(models, models.stream(options, words=True))
        self.models, self.key, self.parent = models, key, parent

    def __iter__(self) -> Generator[Step | Result]:
        recorder, left = Recorder(self.models, self.events, self.limit), list(self.branches)
        while True:
            try:
                for event in recorder:
                    if not isinstance(event, Result):
                        yield event
            finally:
                recorder.close()
            made = recorder.recordings[0]
            if made is None or not left:
                break
            change = dict(left.pop(0))
            step = change.pop("at")
            recorder = BranchRun(self.models, made, step, change, limit=self.limit)
        if made is not None:
            made = replace(
                made,
                key=made.key if self.key is None else self.key,
                parent=made.parent if self.parent is None else self.parent,
            )
        self.recordings = [made]
        yield event


def resolve_changes(
    recording: Recording, changes: Mapping[str, Any]
) -> tuple[ResolvedOptions, int | None]:
    """Check and fill in the options of a branch, which draws on from a step of `recording`.

    Returns all options of the branch, and the new seed of the sampler's noise or None. changes:
    {option: new value} for options in CHANGES, such as "cfg"; None as a value changes nothing. If a
    new sampler does not accept the recorded schedule, the schedule becomes "automatic". Raises
    InputError for an option that a branch cannot change and for a wrong value.
    """
    from ..options import MAX_SEED, GenerateOptions, whole_number
    from ..samplers import check_pair

    given = {name: value for name, value in changes.items() if value is not None}
    for name in given:
        if name not in CHANGES:
            raise InputError(
                f"A branch cannot change {name[:100]}; it can change {closest(name, CHANGES)}."
            )
    noise_seed = given.pop("noise_seed", None)
    if noise_seed is not None:
        try:
            noise_seed = whole_number("noise_seed", noise_seed, 0, MAX_SEED)
        except ValueError as error:
            raise InputError(f"N{str(error)[1:]}") from None
    checked = GenerateOptions(**given)
    update = {name: getattr(checked, name) for name in given}
    seed, variation_seed = recording.origin.seeds
    single = {"count": 1, "seed": seed, "variation_seed": variation_seed}
    options = recording.options.model_copy(update=single | update)
    reason = check_pair(options.sampler, options.schedule)
    if reason and "schedule" not in given:
        options, reason = options.model_copy(update={"schedule": "automatic"}), None
    if reason:
        raise InputError(reason)
    return options, noise_seed


def _differences(
    recording: Recording, options: ResolvedOptions, noise_seed: int | None
) -> dict[str, Any]:
    names = [name for name in CHANGES if name != "noise_seed"]
    found = {
        name: getattr(options, name)
        for name in names
        if getattr(options, name) != getattr(recording.options, name)
    }
    return found if noise_seed is None else found | {"noise_seed": noise_seed}


def _whole_step(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, (int, float)) or step != step // 1:
        raise InputError(f"A step is a whole number, not {str(step)[:40]!r}.")
    return int(step)


def _nearest_step(
    models: Models, options: ResolvedOptions, start: InitialState, sigma: float
) -> int:
    """Return the step at which another sampler's noise level is nearest `sigma`, to continue there.

    The step counts from 0; the sampler is that of `options`. Nearest means by the ratio of the two
    levels. start: the latents and noise to begin from. Raises InputError for a sampler that cannot
    begin at a later step.
    """
    import torch

    from ..samplers import SAMPLERS, make_sampler

    assert start.noise is not None
    best, distance = 0, math.inf
    for step in range(options.steps):
        generator = torch.Generator().manual_seed(0)
        try:
            sampler = make_sampler(
                options.sampler,
                options.schedule,
                models.scheduler_config,
                start.noise,
                options.steps,
                generator,
                0,
                start_step=step,
                clean=start.clean,
            )
        except InputError as error:
            other = next(s for s in ("euler", "ddim") if s != options.sampler)
            raise InputError(f"{error} {SAMPLERS[other].label} can begin here.") from None
        level = float(next(sampler).sigma)
        sampler.close()
        off = abs(math.log(max(level, 1e-9) / sigma))
        if off >= distance:
            break
        best, distance = step, off
    return best
