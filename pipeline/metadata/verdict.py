"""The verdict on a picture that was made again: facts, and the sentences that say them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

KINDS = {  # of a verdict: its name
    "identical": "Identical",
    "departs": "Departs",
    "tampered": "Tampered with",
    "other": "Another model",
}
ENVIRONMENT_LABELS = {  # of what may differ in the environment
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


class Difference(NamedTuple):
    """A part of the environment that changed: its key, then and now; "" where there is none."""

    what: str
    then: str
    now: str


class PixelDifference(NamedTuple):
    """Of two pictures: mean and largest difference, 0 to 255, and the share of differing pixels."""

    mean: float
    largest: int
    share: float


@dataclass(frozen=True)
class Verdict:
    """The result of a verification.

    kind         a key of KINDS
    same         for the initial latents and each step: whether the latents came out identical
    step         the first that did not, 0 for the initial latents; `steps` + 1 where only the
                 decoded picture differs; None where everything is identical
    amount       estimated RMS of the latents' difference at `step`; final: after the last step
    pixels       exact difference of the pixels; None where nothing was drawn or the sizes differ
    altered      what does not fit the receipt: "receipt", "pixels", "text"
    environment  what differs between the two runs
    model, here  name and hash of the model that drew it, and of the one that was used now
    image        the picture made again
    difference   where it differs from the file, brightest where the most; None where nowhere
    """

    kind: str
    same: tuple[bool, ...] = ()
    step: int | None = None
    amount: float | None = None
    final: float | None = None
    pixels: PixelDifference | None = None
    altered: tuple[str, ...] = ()
    environment: tuple[Difference, ...] = ()
    model: str = ""
    here: str = ""
    image: Image.Image | None = field(default=None, repr=False)
    difference: Image.Image | None = field(default=None, repr=False)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return max(len(self.same) - 1, 0)

    @property
    def sentences(self) -> list[str]:
        """The verdict in English, the kind first."""
        said = {
            "identical": self._identical,
            "departs": self._departs,
            "tampered": self._tampered,
            "other": self._other,
        }[self.kind]()
        return [f"{KINDS[self.kind]}: {said[0]}", *said[1:], *self._environment()]

    def _identical(self) -> list[str]:
        steps = f"all {self.steps} steps and " if self.steps else ""
        return [f"{steps}every pixel came out again, bit for bit."]

    def _departs(self) -> list[str]:
        if self.step > self.steps:
            again = f"all {self.steps} steps came out again, but not the pixels."
            return [f"{again} {self._pixel_sentence()}"]
        where = f"at step {self.step} of {self.steps}" if self.step else "before the first step"
        amount = "" if self.amount is None else f" by {self.amount:.2g} there"
        final = "" if self.final is None else f" and by {self.final:.2g} at the end"
        return [
            f"{where}; the latents differ{amount}{final} (RMS, estimated). {self._pixel_sentence()}"
        ]

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
                return [
                    *said,
                    f"{again}: this is the true picture changed. {self._pixel_sentence()}",
                ]
            return [*said, f"{again}, and every pixel: only the text is another."]
        where = f"depart at step {self.step}" if self.step else "depart before the first step"
        return [
            *said,
            f"The steps of the receipt {where} of {self.steps}. {self._pixel_sentence()}",
        ]

    def _other(self) -> list[str]:
        return [f"it was made with {self.model}, and the one here is {self.here}."]

    def _pixel_sentence(self) -> str:
        if self.pixels is None:
            return "The picture made again has another size."
        if not self.pixels.largest:
            return "The pixels are the same."
        return (
            f"{self.pixels.share:.1%} of the pixels differ, by {self.pixels.mean:.2g} of 255 on"
            f" average over all and {self.pixels.largest} at most."
        )

    def _environment(self) -> list[str]:
        if not self.environment:
            return ["The surroundings are as they were."] if self.same else []
        rows = (
            f"{ENVIRONMENT_LABELS.get(d.what, d.what)} {_was_and_is(d)}" for d in self.environment
        )
        return [f"Not as it was: {'; '.join(rows)}."]


def _was_and_is(row: Difference) -> str:
    return f"was {row.then or 'none'}, is {row.now or 'none'}"
