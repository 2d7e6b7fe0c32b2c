"""Verify a picture: make it again as its receipt says, and compare it step by step.

A picture may come from anyone, so its receipt is not trusted: options and branches pass the same
checks as a person's, and a model is looked up by name, never by path.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, closest, short
from .events import Result
from .metadata import infotext, receipt
from .metadata.comparison import (
    difference_image,
    environment_differences,
    file_differences,
    pixel_difference,
    texts_agree,
    weight_differences,
)
from .metadata.fingerprint import LatentFingerprint, fingerprint
from .metadata.receipt import Receipt
from .metadata.verdict import Verdict

if TYPE_CHECKING:
    from PIL import Image

    from .events import Events
    from .model import Models

# Decoding the same latents on another machine changes a colour value by at most this, of 255.
MAX_DECODING_DIFFERENCE = 8


@dataclass(frozen=True)
class StepChecked:
    """A step was made again. step: 0 for the initial latents. same: whether all are identical."""

    step: int
    total: int
    same: bool


@dataclass(frozen=True)
class VerificationInput:
    """A picture to verify, with its checked receipt.

    options: of its task; None where the receipt was changed, so that nothing is drawn. image: as in
    the file; text: its parameters text.
    """

    path: Path
    receipt: Receipt
    options: Any
    image: Image.Image
    text: str

    @property
    def total(self) -> int:
        """The number of steps."""
        return max(len(self.receipt.steps) - 1, 0)


def open_input(path: str | Path, **given: Any) -> VerificationInput:
    """Read and check a picture's file, and the `picture` and `mask` that it began from.

    Raises InputError in one sentence for a picture that cannot be verified.
    """
    from . import tasks
    from .images.open import open_picture

    then = receipt.read(path)
    image = open_picture(path).image
    try:
        text = infotext.read(path)
    except InputError:
        text = ""
    options = None
    if then.intact:
        given = {name: value for name, value in given.items() if value}
        _check_inputs(then, given)
        fields = {k: v for k, v in then.options.items() if k not in receipt.INPUT_PICTURES}
        if then.task not in tasks.TASKS or then.task == "grid":
            raise InputError(f"The receipt is of a task that is not known: {short(then.task)}.")
        try:
            options = tasks.options(then.task, **fields, **given)
        except InputError as error:
            raise InputError(f"The receipt asks for what cannot be drawn: {error}") from None
        if then.image >= options.count or options.seed is None:
            raise InputError("The receipt does not say which picture of its request this is.")
        for name, digest in receipt.input_digests(options).items():
            if then.inputs.get(name) != digest:
                raise InputError(
                    f"This is not the {name} that it began from: its pixels have another hash."
                )
    return VerificationInput(Path(path), then, options, image, text)


def _check_inputs(then: Receipt, given: dict[str, Any]) -> None:
    missing = [name for name in then.inputs if name not in given]
    if missing:
        names = " and ".join(missing)
        flags = " ".join(f"--{name} FILE" for name in missing)
        raise InputError(f"It began from a {names}: give the same to verify it ({flags}).")
    for name in given:
        if name not in then.inputs:
            raise InputError(f"It began from no {name}: verify it without one.")


def choose_model(
    then: Receipt,
    names: Iterable[str],
    vaes: Iterable[str],
    hashes: Mapping[str, str] | None = None,
) -> tuple[str, str | None]:
    """Return the names of the receipt's model and of its autoencoder, None for the model's own.

    names, vaes: those to choose from. hashes: {name: hash} of models whose hash is known; it
    decides where the name is not among them. Raises InputError where the model is not here.
    """
    names, vaes = list(names), list(vaes)
    name, vae = then.model.get("name"), then.model.get("vae")
    if name not in names:
        known = {digest: n for n, digest in (hashes or {}).items() if digest}
        name = known.get(then.model.get("hash") or "")
    if name is None:
        there = closest(str(then.model.get("name"))[:100], names) or "none"
        raise InputError(
            f"It was made with the model {short(then.model_label)}, which is not here;"
            f" there is {there}."
        )
    if vae is not None and vae not in vaes:
        there = closest(str(vae)[:100], vaes) or "none"
        raise InputError(
            f"It was made with the autoencoder {short(vae)}, which is not here; there is {there}."
        )
    return name, vae


def verify(
    models: Models,
    path: str | Path,
    *,
    picture: Any = None,
    mask: Any = None,
    **backends: str | None,
) -> Verdict:
    """Return the Verdict on the picture at `path`, made again by `models`; see `check`."""
    *_, verdict = check(models, open_input(path, picture=picture, mask=mask), **backends)
    assert isinstance(verdict, Verdict)
    return verdict


def check(
    models: Models | None,
    case: VerificationInput,
    *,
    attention: str | None = None,
    group_norm: str | None = None,
) -> Iterator[StepChecked | Verdict]:
    """Make a picture again: yield a StepChecked for each step, then the Verdict.

    models: None will do where the receipt was changed. attention, group_norm: names of backends;
    None for those that ran then, where they can run here. Closing the iterator stops the work.
    """
    then, label = case.receipt, short(case.receipt.model_label)
    if not then.intact:
        yield Verdict("tampered", altered=("receipt",), model=label)
        return
    assert models is not None
    here = f"{models.name} {models.hash}"
    weights = weight_differences(then.weights, models.digests)
    if weights:
        yield Verdict("other", environment=weights, model=label, here=here)
        return
    expected = then.fingerprints
    same: list[bool] = []
    with closing(_replay(models, case, attention, group_norm)) as events:
        for event in events:
            if event is not None and not isinstance(event, tuple):
                image = event
                break
            if event is not None and event[0] == len(same) < len(expected):
                same.append(event[1].digest == expected[event[0]].digest)
            yield StepChecked(max(len(same) - 1, 0), case.total, all(same))
    yield replace(_judge(case, image), model=label, here=here)


def _judge(case: VerificationInput, image: Image.Image) -> Verdict:
    """Return the verdict for the picture made again, without the names of the models."""
    then, now = case.receipt, receipt.from_image(image)
    assert now is not None
    expected = then.fingerprints
    pairs = list(zip(expected, now.fingerprints, strict=False))
    same = [a.digest == b.digest for a, b in pairs]
    same += [False] * (max(len(expected), len(now.steps)) - len(pairs))
    step = next((k for k, equal in enumerate(same) if not equal), None)
    amount = final = None
    if step is not None and step < len(pairs):
        amount = pairs[step][0].rms_difference(pairs[step][1])
        if len(expected) == len(now.steps):
            final = pairs[-1][0].rms_difference(pairs[-1][1])
    text = image.info["parameters"]
    pixels = pixel_difference(case.image, image)
    environment = (
        *environment_differences(then.ran | then.versions, now.ran | now.versions),
        *file_differences(case.text, text),
    )
    same_version = then.versions.get("glassbox") == now.versions["glassbox"]
    altered = []
    if receipt.pixels_digest(case.image) != then.pixels:
        altered.append("pixels")
    if receipt.text_digest(case.text) != then.text or not texts_agree(
        case.text, text, same_version
    ):
        altered.append("text")
    if step is None and (pixels is None or pixels.largest):
        if not altered and environment and pixels and pixels.largest <= MAX_DECODING_DIFFERENCE:
            step = len(same)  # identical latents, decoded to slightly other pixels
        elif "pixels" not in altered:
            altered.insert(0, "pixels")
    return Verdict(
        "tampered" if altered else "identical" if step is None else "departs",
        same=tuple(same),
        step=step,
        amount=amount,
        final=final,
        pixels=pixels,
        altered=tuple(altered),
        environment=environment,
        image=image,
        difference=difference_image(case.image, image),
    )


def _replay(
    models: Models, case: VerificationInput, attention: str | None, group_norm: str | None
) -> Generator[tuple[int, LatentFingerprint] | Image.Image | None, None, None]:
    """Draw the picture of a receipt again, through all its branches.

    Yields (index, fingerprint) for each of its steps in order, None for steps of other pictures and
    of what a branch replaced, and at last the picture.
    """
    from . import tasks
    from .introspection.branch import BranchRun
    from .introspection.recording import Recorder
    from .tasks.common import single

    then, options = case.receipt, case.options
    task = tasks.TASKS[then.task]
    image = then.image if task.uses_first_seed else 0
    options = (
        options.model_copy(update={"count": image + 1}) if image else single(options, then.image)
    )
    wanted = {"attention": attention, "group_norm": group_norm}
    backends = {kind: _choose_backend(models, then, kind, name) for kind, name in wanted.items()}
    options = options.model_copy(update=backends)
    drawn = tasks.stream(models, then.task, options, words=then.words)
    run: Events | Recorder = Recorder(models, drawn) if then.branches else drawn
    first_pass = options.steps if task.two_passes else 0  # branches count from the second pass
    branch_steps = [_branch_step(branch) for branch in then.branches]
    index, result = 0, None
    for step, changes in zip([*branch_steps, None], [*then.branches, {}], strict=True):
        seen, end = None, case.total if step is None else first_pass + step
        with closing(iter(run)) as events:
            for event in events:
                if isinstance(event, Result):
                    result = event
                elif event.image == image and event.index != seen and index < end:
                    yield index, fingerprint(event.latents)
                    seen, index = event.index, index + 1
                else:
                    yield None
        if step is not None:
            assert isinstance(run, Recorder)
            recording, image, index = run.recordings[image], 0, end
            if recording is None:
                raise InputError("Its way takes too much memory to be gone on from.")
            changed = {name: value for name, value in changes.items() if name != "at"}
            run = BranchRun(models, recording, step, changed)
    assert result is not None
    if result.latents:
        yield index, fingerprint(result.latents[image])
    yield result.images[image]


def _branch_step(branch: dict[str, Any]) -> int:
    at = branch.get("at")
    if isinstance(at, bool) or not isinstance(at, int):
        raise InputError("The receipt does not say at which step a branch begins.")
    return at


def _choose_backend(models: Models, then: Receipt, kind: str, name: str | None) -> str | None:
    """Return the backend to run: `name`, else the one that ran then; None where it cannot run."""
    ran = then.ran.get(kind)
    if name is not None or ran is None:
        return name
    from .backends import KINDS as BACKENDS

    if ran not in BACKENDS[kind].table or models.backends.unsupported_reason(kind, ran):
        return None
    return ran


def nearest_device(then: Receipt) -> dict[str, str]:
    """Return device and dtype nearest to those of the receipt, as arguments of `load`."""
    from .loading.device import DTYPES, choose_device, choose_dtype

    named = {value: key for key, value in DTYPES.items()}
    device, dtype = then.ran.get("device", "auto"), named.get(then.ran.get("dtype", ""), "auto")
    try:
        there = choose_device(device)
    except InputError:
        device, there = "auto", choose_device("auto")
    try:
        choose_dtype(dtype, there)
    except InputError:
        dtype = "auto"
    return {"device": device, "dtype": dtype}
