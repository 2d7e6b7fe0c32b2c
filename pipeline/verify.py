"""Verifying: a picture is made again as its receipt says, and compared step by step.

A picture may come from anyone, so nothing of its receipt is believed: options and branches pass the
same checks as a person's, and a model is one of the names here, never a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InputError, closest, short
from .events import Result
from .metadata import infotext, receipt
from .metadata.receipt import Mark, Receipt

if TYPE_CHECKING:
    from PIL import Image

KINDS = {  # of a verdict: in words
    "identical": "Identical",
    "departs": "Departs",
    "tampered": "Tampered with",
    "other": "Another model",
}
DECODED = 8  # of 255: more than another machine's rounding changes in decoding the same latents
WITHIN_BATCH = ("inpaint",)  # what is under the mask at first is of the batch's first seed
TWO_PASSES = ("hires",)  # the marks of the first, with as many steps as asked, go before
# What may differ in the surroundings, in words.
AROUND = {
    "device": "device",
    "device_name": "device's name",
    "instructions": "instructions",
    "threads": "threads",
    "dtype": "type of numbers",
    "attention": "attention",
    "vae_attention": "attention of the autoencoder",
    "group_norm": "GroupNorm",
    "memory": "memory",
    "lora": "LoRAs",
    "embedding": "textual inversions",
}
FILES = {"lora": "Lora hashes", "embedding": "TI hashes"}  # fields of the parameters text
# Fields of the text that say what is compared on its own.
TOLD = {"Version", "Model", "Model hash", "VAE", *FILES.values()}


class Difference(NamedTuple):
    """A part of the surroundings that is not as it was; "" where there is none."""

    what: str
    then: str
    now: str


class PixelDifference(NamedTuple):
    """Of the file's pixels and those made again: mean and largest difference, 0 to 255, and the
    share of pixels that differ."""

    mean: float
    largest: int
    share: float


@dataclass(frozen=True)
class Checked:
    """A step was made again. step: 0 for what it began with; same: whether all were, so far."""

    step: int
    total: int
    same: bool


@dataclass(frozen=True)
class Verdict:
    """What came of it.

    kind          a key of KINDS
    same          for the beginning and each step: whether the latents came out again
    step          the first that did not, 0 for the beginning; one more than there are where only
                  the decoded picture is another
    amount        RMS of the latents' difference at that step, estimated; final: at the last
    pixels        the pixels' difference, exact; None where nothing was drawn or the size is another
    altered       what does not fit the receipt: "receipt", "pixels", "text"
    surroundings  what is not as it was
    model, here   name and hash of the model that drew it, and of the one that was asked
    image         made again; apart: where it differs from the file, the brightest where
                  the most; None where it does not
    """

    kind: str
    same: tuple[bool, ...] = ()
    step: int | None = None
    amount: float | None = None
    final: float | None = None
    pixels: PixelDifference | None = None
    altered: tuple[str, ...] = ()
    surroundings: tuple[Difference, ...] = ()
    model: str = ""
    here: str = ""
    image: Image.Image | None = field(default=None, repr=False)
    apart: Image.Image | None = field(default=None, repr=False)

    @property
    def steps(self) -> int:
        return max(len(self.same) - 1, 0)

    @property
    def sentences(self) -> list[str]:
        """The verdict in words, the kind first."""
        said = {
            "identical": self._identical,
            "departs": self._departs,
            "tampered": self._tampered,
            "other": self._other,
        }[self.kind]()
        return [f"{KINDS[self.kind]}: {said[0]}", *said[1:], *self._around()]

    def _identical(self) -> list[str]:
        steps = f"all {self.steps} steps and " if self.steps else ""
        return [f"{steps}every pixel came out again, bit for bit."]

    def _departs(self) -> list[str]:
        if self.step > self.steps:
            return [f"all {self.steps} steps came out again, but not the pixels. {self._seen()}"]
        where = f"at step {self.step} of {self.steps}" if self.step else "before the first step"
        amount = "" if self.amount is None else f" by {self.amount:.2g} there"
        final = "" if self.final is None else f" and by {self.final:.2g} at the end"
        return [f"{where}; the latents differ{amount}{final} (RMS, estimated). {self._seen()}"]

    def _tampered(self) -> list[str]:
        what = {
            "receipt": "its receipt was changed after it was written",
            "pixels": "its pixels are not those that its receipt was written for",
            "text": "its parameters text is not the one that its receipt was written for",
        }
        said = [" and ".join(what[name] for name in self.altered) + "."]
        if not self.same:
            return said
        if self.step is None or self.step > self.steps:
            again = f"All {self.steps} steps of the receipt came out again"
            if "pixels" in self.altered:
                return [*said, f"{again}: this is the true picture changed. {self._seen()}"]
            return [*said, f"{again}, and every pixel: only the text is another."]
        where = f"depart at step {self.step}" if self.step else "depart before the first step"
        return [*said, f"The steps of the receipt {where} of {self.steps}. {self._seen()}"]

    def _other(self) -> list[str]:
        return [f"it was made with {self.model}, and the one here is {self.here}."]

    def _seen(self) -> str:
        if self.pixels is None:
            return "The picture made again has another size."
        if not self.pixels.largest:
            return "The pixels are the same."
        return (
            f"{self.pixels.share:.1%} of the pixels differ, by {self.pixels.mean:.2g} of 255 on"
            f" average over all and {self.pixels.largest} at most."
        )

    def _around(self) -> list[str]:
        if not self.surroundings:
            return ["The surroundings are as they were."] if self.same else []
        rows = (f"{AROUND.get(d.what, d.what)} {_was(d)}" for d in self.surroundings)
        return [f"Not as it was: {'; '.join(rows)}."]


def _was(row: Difference) -> str:
    return f"was {row.then or 'none'}, is {row.now or 'none'}"


@dataclass(frozen=True)
class Case:
    """A picture to verify, read and checked; `asked` are the options of its task."""

    path: Path
    receipt: Receipt
    asked: Any
    image: Image.Image
    text: str

    @property
    def total(self) -> int:
        return max(len(self.receipt.steps) - 1, 0)


def opened(path: str | Path, **given: Any) -> Case:
    """A picture's file and the `picture` and `mask` that it began from; InputError in one sentence
    for one that cannot be verified."""
    from . import tasks
    from .images.open import open_picture

    then = receipt.read(path)
    image = open_picture(path).image
    try:
        text = infotext.read(path)
    except InputError:
        text = ""
    asked = None
    if then.whole:  # nothing is drawn for one that was changed
        given = {name: value for name, value in given.items() if value}
        _inputs_there(then, given)
        options = {k: v for k, v in then.options.items() if k not in receipt.PICTURES}
        if then.task not in tasks.TASKS or then.task == "grid":
            raise InputError(f"The receipt is of a task that is not known: {short(then.task)}.")
        try:
            asked = tasks.options(then.task, **options, **given)
        except InputError as error:
            raise InputError(f"The receipt asks for what cannot be drawn: {error}") from None
        if then.image >= asked.count or asked.seed is None:
            raise InputError("The receipt does not say which picture of its request this is.")
        for name, digest in receipt.inputs(asked).items():
            if then.inputs.get(name) != digest:
                raise InputError(
                    f"This is not the {name} that it began from: its pixels have another hash."
                )
    return Case(Path(path), then, asked, image, text)


def _inputs_there(then: Receipt, given: dict[str, Any]) -> None:
    missing = [name for name in then.inputs if name not in given]
    if missing:
        names = " and ".join(missing)
        flags = " ".join(f"--{name} FILE" for name in missing)
        raise InputError(f"It began from a {names}: give the same to verify it ({flags}).")
    for name in given:
        if name not in then.inputs:
            raise InputError(f"It began from no {name}: verify it without one.")


def chosen(then: Receipt, names: Iterable[str], vaes: Iterable[str], hashes=None) -> tuple:
    """Name of the model, of those here, and of its autoencoder or None; InputError where they are
    not here. hashes: {name: hash} of models whose hash is known; it decides where the name fails.
    """
    names, vaes = list(names), list(vaes)
    name, vae = then.model.get("name"), then.model.get("vae")
    if name not in names:
        known = {digest: n for n, digest in (hashes or {}).items() if digest}
        name = known.get(then.model.get("hash"))
    if name is None:
        there = closest(str(then.model.get("name"))[:100], names) or "none"
        raise InputError(
            f"It was made with the model {short(then.called)}, which is not here; there is {there}."
        )
    if vae is not None and vae not in vaes:
        there = closest(str(vae)[:100], vaes) or "none"
        raise InputError(
            f"It was made with the autoencoder {short(vae)}, which is not here; there is {there}."
        )
    return name, vae


def verify(models: Any, path: str | Path, *, picture=None, mask=None, **backends: str) -> Verdict:
    """The Verdict on the picture at `path`, made again by `models`; see `check`."""
    *_, verdict = check(models, opened(path, picture=picture, mask=mask), **backends)
    return verdict


def check(
    models: Any, case: Case, *, attention: str | None = None, group_norm: str | None = None
) -> Iterator[Checked | Verdict]:
    """A Checked for each step, then the Verdict. Closing the iterator stops the work.

    models: not needed for a receipt that is not whole. attention, group_norm: names of backends;
    None: those that ran then, where they can run here.
    """
    then = case.receipt
    said = {"model": short(then.called)}
    if not then.whole:
        yield Verdict("tampered", altered=("receipt",), **said)
        return
    said["here"] = f"{models.name} {models.hash}"
    parts = _parts(then.weights, models.digests)
    if parts:
        yield Verdict("other", surroundings=parts, **said)
        return
    then_marks = then.marks
    same: list[bool] = []
    with closing(_again(models, case, attention, group_norm)) as events:
        for event in events:
            if hasattr(event, "info"):
                image = event
                break
            if event and event[0] == len(same) < len(then_marks):
                same.append(event[1].digest == then_marks[event[0]].digest)
            yield Checked(max(len(same) - 1, 0), case.total, all(same))
    yield _judged(case, image, then_marks, said)


def _judged(case: Case, image: Image.Image, then_marks: list[Mark], said: dict) -> Verdict:
    then, now = case.receipt, receipt.of(image)
    pairs = list(zip(then_marks, now.marks, strict=False))
    same = [a.digest == b.digest for a, b in pairs]
    same += [False] * (max(len(then_marks), len(now.steps)) - len(pairs))
    step = next((k for k, equal in enumerate(same) if not equal), None)
    found = {}
    if step is not None and step < len(pairs):
        found = {"amount": pairs[step][0].apart(pairs[step][1])}
        if len(then_marks) == len(now.steps):
            found["final"] = pairs[-1][0].apart(pairs[-1][1])
    text = image.info["parameters"]
    pixels = _pixels(case.image, image)
    around = (*_around(then.ran | then.versions, now.ran | now.versions), *_files(case.text, text))
    altered = []
    if receipt.pixels(case.image) != then.pixels:
        altered.append("pixels")
    if receipt.text_digest(case.text) != then.text or not _says(case, text, now, around):
        altered.append("text")
    if step is None and (pixels is None or pixels.largest):
        if not altered and around and pixels and pixels.largest <= DECODED:
            step = len(same)  # the same latents, decoded otherwise
        elif "pixels" not in altered:
            altered.insert(0, "pixels")
    kind = "tampered" if altered else "identical" if step is None else "departs"
    return Verdict(
        kind, tuple(same), step, **found, pixels=pixels, altered=tuple(altered),
        surroundings=around, image=image, apart=_apart(case.image, image), **said,
    )  # fmt: skip


def _again(models, case: Case, attention: str | None, group_norm: str | None):
    """(place, Mark) of each step that is the picture's own, in their order, None for the others;
    at last the picture."""
    from . import tasks
    from .introspection.branch import BranchRun
    from .introspection.recording import Recorder
    from .tasks.common import alone

    then, asked = case.receipt, case.asked
    at = then.image if then.task in WITHIN_BATCH else 0
    asked = asked.model_copy(update={"count": at + 1}) if at else alone(asked, then.image)
    wanted = {"attention": attention, "group_norm": group_norm}
    asked = asked.model_copy(update={k: _able(models, then, k, v) for k, v in wanted.items()})
    events = tasks.stream(models, then.task, asked, words=then.words)
    way = Recorder(models, events) if then.branches else events
    first = asked.steps if then.task in TWO_PASSES else 0  # branches count from the second pass
    steps = [_step(branch) for branch in then.branches]
    place = 0
    for step, changes in zip([*steps, None], [*then.branches, {}], strict=True):
        seen, end = None, case.total if step is None else first + step
        with closing(iter(way)) as events:
            for event in events:
                if isinstance(event, Result):
                    result = event
                elif event.image == at and event.index != seen and place < end:
                    yield place, receipt.mark(event.latents)
                    seen, place = event.index, place + 1
                else:
                    yield None
        if step is not None:
            recording, at, place = way.recordings[at], 0, end
            if recording is None:
                raise InputError("Its way takes too much memory to be gone on from.")
            way = BranchRun(models, recording, step, {k: changes[k] for k in changes if k != "at"})
    if result.latents:
        yield place, receipt.mark(result.latents[at])
    yield result.images[at]


def _step(branch: dict[str, Any]) -> int:
    at = branch.get("at")
    if isinstance(at, bool) or not isinstance(at, int):
        raise InputError("The receipt does not say at which step a branch begins.")
    return at


def _able(models, then: Receipt, kind: str, name: str | None) -> str | None:
    """The backend to run: what was asked for, else what ran then; None where that cannot."""
    ran = then.ran.get(kind)
    if name is not None or ran is None:
        return name
    from .backends import KINDS as BACKENDS

    if ran not in BACKENDS[kind].table or models.backends.unsupported_reason(kind, ran):
        return None
    return ran


def _parts(then: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    """Parts of the model whose weights are others."""
    names = dict.fromkeys([*then, *now])
    pairs = [(n, then.get(n, "")[:10], now.get(n, "")[:10]) for n in names]
    return tuple(Difference(*p) for p in pairs if then.get(p[0]) != now.get(p[0]))


def _around(then: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    names = dict.fromkeys([*now, *then])
    rows = (Difference(n[:60], short(then.get(n, "")), now.get(n, "")) for n in names)
    return tuple(row for row in rows if row.then != row.now)


def _files(then: str, now: str) -> tuple[Difference, ...]:
    """LoRAs and textual inversions whose weights are others, or that are not here."""
    old, new = infotext.parse(then), infotext.parse(now)
    rows = (
        Difference(what, short(old.get(name, "")), new.get(name, ""))
        for what, name in FILES.items()
    )
    return tuple(row for row in rows if row.then != row.now)


def _says(case: Case, text: str, now: Receipt, around: Iterable[Difference]) -> bool:
    """Whether the file's text says what the picture was made with.

    Another version may write other fields, and its own are held against those alone."""
    old, new = infotext.parse(case.text), infotext.parse(text)
    if case.receipt.versions.get("glassbox") == now.versions["glassbox"]:
        names = {*old, *new} - TOLD
    else:
        names = ({*old} & {*new}) - TOLD
    return all(old.get(name) == new.get(name) for name in names)


def _pixels(then: Image.Image, now: Image.Image) -> PixelDifference | None:
    import numpy as np

    if then.size != now.size:
        return None
    a, b = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (then, now))
    apart = np.abs(a - b)
    return PixelDifference(float(apart.mean()), int(apart.max()), float(apart.any(-1).mean()))


def _apart(then: Image.Image, now: Image.Image) -> Image.Image | None:
    from PIL import ImageChops

    if then.size != now.size:
        return None
    bands = ImageChops.difference(then.convert("RGB"), now.convert("RGB")).split()
    apart = ImageChops.lighter(ImageChops.lighter(*bands[:2]), bands[2])
    largest = apart.getextrema()[1]
    return apart.point([min(255, v * 255 // largest) for v in range(256)]) if largest else None


def machine_flags(then: Receipt) -> dict[str, str]:
    """Device and dtype that are as near as may be to those that drew it: arguments of `load`."""
    from .loading.device import DTYPES, choose_device, choose_dtype

    named = {value: key for key, value in DTYPES.items()}
    device, dtype = then.ran.get("device", "auto"), named.get(then.ran.get("dtype"), "auto")
    try:
        there = choose_device(device)
    except InputError:
        device, there = "auto", choose_device("auto")
    try:
        choose_dtype(dtype, there)
    except InputError:
        dtype = "auto"
    return {"device": device, "dtype": dtype}
