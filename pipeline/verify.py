"""Verify a picture: draw it again from its receipt and compare the latents of every step.

A receipt is JSON in the picture's file: the options, the model, the environment, and a fingerprint
of the latents of each step. As a file may come from anyone, the receipt is not trusted: its options
are validated like a user's, and the model is looked up by name or hash, never by path.
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

# Largest difference of a colour value (0 to 255) if equal latents are decoded on another machine.
MAX_DECODING_DIFFERENCE = 8


@dataclass(frozen=True)
class StepChecked:
    """One more model call was made while a picture is verified: drawn again and compared.

    The receipt in the picture's file has a fingerprint of the latents after each step. Those of the
    new drawing are compared with it.

    step   number of the last step that was compared, 1 to `total`; 0: only the initial latents
    total  number of steps of the picture
    same   whether the latents of this and of all steps before equal the receipt's fingerprints
    """

    step: int
    total: int
    same: bool


@dataclass(frozen=True)
class VerificationInput:
    """A picture to verify: to draw again from the receipt in its file and compare with it.

    `open_input` makes it.

    path     the picture's file
    receipt  the receipt in it: options, model, and a fingerprint of the latents of each step
    options  the validated options to draw it with; None if the receipt was changed after it was
             written, in which case nothing is drawn
    image    the picture of the file
    text     the parameters text of the file, in A1111's format; "" if it has none
    """

    path: Path
    receipt: Receipt
    options: Any
    image: Image.Image
    text: str

    @property
    def total(self) -> int:
        """The number of sampling steps that the picture's receipt has fingerprints of."""
        return max(len(self.receipt.steps) - 1, 0)


def open_input(path: str | Path, **given: Any) -> VerificationInput:
    """Open a picture that shall be verified, with its receipt, and check that it can be.

    The receipt is JSON in the file: options, model, and a fingerprint of the latents of each step.
    given: the pictures that it was made from, `picture` and `mask`, as paths or as its task's
    options take them; None for one that it was not made from. Raises InputError if the file has no
    receipt, if such a picture is missing or is another one, and for options that cannot be drawn.
    """
    from . import tasks
    from .images.open import open_picture

    original = receipt.read(path)
    image = open_picture(path).image
    try:
        text = infotext.read(path)
    except InputError:
        text = ""
    options = None
    if original.intact:
        given = {name: value for name, value in given.items() if value}
        _check_inputs(original, given)
        fields = {k: v for k, v in original.options.items() if k not in receipt.INPUT_PICTURES}
        if original.task not in tasks.TASKS or original.task == "grid":
            raise InputError(f"The receipt is of a task that is not known: {short(original.task)}.")
        try:
            options = tasks.options(original.task, **fields, **given)
        except InputError as error:
            raise InputError(f"The receipt asks for what cannot be drawn: {error}") from None
        if original.image >= options.count or options.seed is None:
            raise InputError("The receipt does not say which picture of its request this is.")
        for name, digest in receipt.input_digests(options).items():
            if original.inputs.get(name) != digest:
                raise InputError(
                    f"This is not the {name} that it began from: its pixels have another hash."
                )
    return VerificationInput(Path(path), original, options, image, text)


def _check_inputs(original: Receipt, given: dict[str, Any]) -> None:
    missing = [name for name in original.inputs if name not in given]
    if missing:
        names = " and ".join(missing)
        flags = " ".join(f"--{name} FILE" for name in missing)
        raise InputError(f"It began from a {names}: give the same to verify it ({flags}).")
    for name in given:
        if name not in original.inputs:
            raise InputError(f"It began from no {name}: verify it without one.")


def choose_model(
    original: Receipt,
    names: Iterable[str],
    vaes: Iterable[str],
    hashes: Mapping[str, str] | None = None,
) -> tuple[str, str | None]:
    """Return the names of the model and of the autoencoder that are needed to verify a picture.

    They are those that drew it; the autoencoder's name is None for the model's own.

    original  the picture's receipt (JSON in its file that says how it was drawn)
    names     names of the available models
    vaes      names of the available autoencoders
    hashes    {name: hash} of those models whose hash is known; used if no model has the name

    Raises InputError if the model or the autoencoder is not available.
    """
    names, vaes = list(names), list(vaes)
    name, vae = original.model.get("name"), original.model.get("vae")
    if name not in names:
        known = {digest: n for n, digest in (hashes or {}).items() if digest}
        name = known.get(original.model.get("hash") or "")
    if name is None:
        there = closest(str(original.model.get("name"))[:100], names) or "none"
        raise InputError(
            f"It was made with the model {short(original.model_label)}, which is not here;"
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
    """Draw the picture in the file `path` again, as its receipt says, and return the Verdict.

    The receipt is JSON in the file: options, model, and a fingerprint of the latents of each step.
    The Verdict says whether the picture came out the same, and if not, from which step on and how
    much it differs. models: the model that its receipt names. picture, mask: the pictures that it
    was made from, if any. backends: `attention` and `group_norm`, names of the backends to use, by
    default those in the receipt. Raises InputError for a picture that cannot be verified.
    """
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
    """Verify a picture: draw it again, yield a StepChecked for each model call, then the Verdict.

    It is drawn from its receipt (JSON in its file: options, model, and a fingerprint of the latents
    of each step). Nothing is drawn if the receipt was changed or if `models` is another model than
    the receipt's: then only the Verdict is yielded. Closing the generator stops the work.

    models                 the model; may be None if the receipt was changed (receipt.intact false)
    case                   the picture and its receipt
    attention, group_norm  names of backends; None means those in the receipt, if they can run here,
                           else the default
    """
    original, label = case.receipt, short(case.receipt.model_label)
    if not original.intact:
        yield Verdict("tampered", altered=("receipt",), model=label)
        return
    assert models is not None
    here = f"{models.name} {models.hash}"
    weights = weight_differences(original.weights, models.digests)
    if weights:
        yield Verdict("other", environment=weights, model=label, here=here)
        return
    expected = original.fingerprints
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
    """Compare `image`, a verified picture drawn again, with the original; return the Verdict.

    The Verdict's fields for the names of the two models (`model`, `here`) stay empty.
    """
    original, redrawn = case.receipt, receipt.from_image(image)
    assert redrawn is not None
    expected = original.fingerprints
    pairs = list(zip(expected, redrawn.fingerprints, strict=False))
    same = [a.digest == b.digest for a, b in pairs]
    same += [False] * (max(len(expected), len(redrawn.steps)) - len(pairs))
    step = next((k for k, equal in enumerate(same) if not equal), None)
    amount = final = None
    if step is not None and step < len(pairs):
        amount = pairs[step][0].rms_difference(pairs[step][1])
        if len(expected) == len(redrawn.steps):
            final = pairs[-1][0].rms_difference(pairs[-1][1])
    text = image.info["parameters"]
    pixels = pixel_difference(case.image, image)
    environment = (
        *environment_differences(original.ran | original.versions, redrawn.ran | redrawn.versions),
        *file_differences(case.text, text),
    )
    same_version = original.versions.get("glassbox") == redrawn.versions["glassbox"]
    altered = []
    if receipt.pixels_digest(case.image) != original.pixels:
        altered.append("pixels")
    if receipt.text_digest(case.text) != original.text or not texts_agree(
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
    """Draw the picture of a receipt again, to compare it, with all branches that led to it.

    A receipt is JSON in the picture's file that says how it was drawn. A branch continues a picture
    from one of its steps with other options. Yields one item for each model call: (index,
    fingerprint of the latents) at the first call of each step that the receipt lists, None at other
    calls. Then come such a pair for the final latents and, as the last item, the picture.
    attention, group_norm: names of backends; None means those in the receipt.
    """
    from . import tasks
    from .introspection.branch import BranchRun
    from .introspection.recording import Recorder
    from .tasks.common import single

    original, options = case.receipt, case.options
    task = tasks.TASKS[original.task]
    image = original.image if task.uses_first_seed else 0
    options = (
        options.model_copy(update={"count": image + 1})
        if image
        else single(options, original.image)
    )
    wanted = {"attention": attention, "group_norm": group_norm}
    backends = {
        kind: _choose_backend(models, original, kind, name) for kind, name in wanted.items()
    }
    options = options.model_copy(update=backends)
    drawn = tasks.stream(models, original.task, options, words=original.words)
    run: Events | Recorder = Recorder(models, drawn) if original.branches else drawn
    first_pass = options.steps if task.two_passes else 0  # branches count from the second pass
    branch_steps = [_branch_step(branch) for branch in original.branches]
    index, result = 0, None
    for step, changes in zip([*branch_steps, None], [*original.branches, {}], strict=True):
        last_index, end = None, case.total if step is None else first_pass + step
        with closing(iter(run)) as events:
            for event in events:
                if isinstance(event, Result):
                    result = event
                elif event.image == image and event.index != last_index and index < end:
                    yield index, fingerprint(event.latents)
                    last_index, index = event.index, index + 1
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


def _choose_backend(models: Models, original: Receipt, kind: str, name: str | None) -> str | None:
    """Return the name of the backend to verify a picture with: `name`, or if None the receipt's.

    original: the picture's receipt (JSON in its file that says how it was drawn). kind: "attention"
    or "group_norm". Returns None, the default backend, if the receipt names none or if its backend
    cannot run here.
    """
    ran = original.ran.get(kind)
    if name is not None or ran is None:
        return name
    from .backends import KINDS as BACKENDS

    if ran not in BACKENDS[kind].table or models.backends.unsupported_reason(kind, ran):
        return None
    return ran


def nearest_device(original: Receipt) -> dict[str, str]:
    """Return the device and dtype to load a model with, to verify a picture as it was drawn.

    It is {"device": ..., "dtype": ...}, arguments of `load`, as in the picture's receipt `original`
    (JSON in its file that says how it was drawn). Each is "auto" if that device or dtype is not
    available here.
    """
    from .loading.device import DTYPES, choose_device, choose_dtype

    named = {value: key for key, value in DTYPES.items()}
    device, dtype = (
        original.ran.get("device", "auto"),
        named.get(original.ran.get("dtype", ""), "auto"),
    )
    try:
        there = choose_device(device)
    except InputError:
        device, there = "auto", choose_device("auto")
    try:
        choose_dtype(dtype, there)
    except InputError:
        dtype = "auto"
    return {"device": device, "dtype": dtype}
