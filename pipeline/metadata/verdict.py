"""The verdict on a picture that was drawn again from its receipt, as values and as sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

KINDS = {  # from the kind of a verdict to its name for users
    "identical": "Identical",
    "departs": "Departs",
    "tampered": "Tampered with",
    "other": "Another model",
}
ENVIRONMENT_LABELS = {  # from the key of a Difference to its name for users
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


SENTENCES = {  # by the keys of Verdict.facts; the demo's page has translations of them
    "identical": "All {steps} steps and every pixel came out again, bit for bit.",
    "identical_pixels": "Every pixel came out again, bit for bit.",
    "departs_start": "The latents differ before the first of {steps} steps.",
    "departs_step": "The latents differ from step {step} of {steps} on.",
    "departs_pixels": (
        "All {steps} steps came out again, and were decoded to slightly other pixels."
    ),
    "amount": "By {amount:.2g} there (root mean square, estimated from the marks).",
    "final": "By {final:.2g} at the end.",
    "pixels": (
        "{share:.1%} of the pixels differ, by {mean:.2g} of 255 on average over all and {largest} "
        "at most."
    ),
    "no_pixels": "The pixels are the same.",
    "size": "The picture made again has another size.",
    "tampered_receipt": "The receipt was changed after it was written.",
    "tampered_pixels": "The pixels are not those that the receipt was written for.",
    "tampered_text": "The parameters text is not the one that the receipt was written for.",
    "true": (
        "All {steps} steps of the receipt came out again: the picture made again is the true one."
    ),
    "true_text": "All {steps} steps and every pixel came out again: only the text is another.",
    "other": "It was made with {model}; the one here is {here}. Nothing was drawn.",
}


class Difference(NamedTuple):
    """A property in which the drawing of a picture and its repetition differ, such as the GPU.

    what: key of the property ("device_name"). then, now: its values, "" for none.
    """

    what: str
    then: str
    now: str


class PixelDifference(NamedTuple):
    """How much the pixels of two equally large pictures differ.

    mean, largest: difference of the RGB values (0 to 255), over all pixels and colours. share: what
    part of the pixels differs at all, 0 to 1.
    """

    mean: float
    largest: int
    share: float


@dataclass(frozen=True)
class Verdict:
    """The result of drawing a picture again from its receipt, to verify that it was drawn so.

    The receipt is the record in a PNG of how its picture was drawn.

    kind         "identical", "departs" (steps or pixels differ), "tampered" (the file was changed)
                 or "other" (another model is loaded, so nothing was drawn)
    same         whether the latents came out identical: the initial ones, then after each step
    step         index in `same` of the first that did not (0: the initial latents); the number of
                 steps + 1 where only the decoded picture differs; None otherwise
    amount       estimated RMS of the latents' difference at `step`
    final        the same after the last step
    pixels       difference of the pixels; None where nothing was drawn or the sizes differ
    altered      what was changed after the receipt was written: "receipt", "pixels", "text"
    environment  in what device, packages, weights, LoRAs and so on differ from those of then
    model, here  name and hash of the model that drew it, and of the one that was used now
    image        the picture drawn again
    difference   grey picture, bright where `image` differs from the file; None if it does not
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
        """How many denoising steps were compared with the receipt's; 0 where nothing was drawn."""
        return max(len(self.same) - 1, 0)

    @property
    def facts(self) -> list[tuple[str, dict[str, Any]]]:
        """The findings of a verification, which draws a picture again, to be told as sentences.

        Each is (key, values): the key of a sentence template in SENTENCES, and the values for its
        placeholders. The order is that of the sentences; the demo has translations by the same
        keys. Differences of the environment (device, packages, ...) are not among them.
        """
        steps: dict[str, Any] = {"steps": self.steps, "step": self.step}
        if self.kind == "other":
            return [("other", {"model": self.model, "here": self.here})]
        if self.kind == "identical":
            return [("identical" if self.steps else "identical_pixels", steps)]
        facts: list[tuple[str, dict[str, Any]]] = [(f"tampered_{x}", {}) for x in self.altered]
        if not self.same:
            return facts
        if self.step is None or self.step > self.steps:
            if self.altered == ("text",):
                return [*facts, ("true_text", steps)]
            facts.append(("true" if facts else "departs_pixels", steps))
        else:
            facts.append(("departs_step" if self.step else "departs_start", steps))
            if self.amount is not None:
                facts.append(("amount", {"amount": self.amount}))
            if self.final is not None and self.step < self.steps:
                facts.append(("final", {"final": self.final}))
        if self.pixels is None:
            return [*facts, ("size", {})]
        if not self.pixels.largest:
            return [*facts, ("no_pixels", {})]
        return [*facts, ("pixels", self.pixels._asdict())]

    @property
    def sentences(self) -> list[str]:
        """What was found by drawing the picture again, in English sentences.

        The first tells the kind of result ("Identical: ..."), the last how the environment (device,
        packages, ...) differs.
        """
        first, *rest = (SENTENCES[key].format(**values) for key, values in self.facts)
        return [f"{KINDS[self.kind]}: {first[0].lower()}{first[1:]}", *rest, *self._environment()]

    def _environment(self) -> list[str]:
        if not self.environment:
            return ["The surroundings are as they were."] if self.same else []
        rows = (
            f"{ENVIRONMENT_LABELS.get(d.what, d.what)} {_was_and_is(d)}" for d in self.environment
        )
        return [f"Not as it was: {'; '.join(rows)}."]


def _was_and_is(row: Difference) -> str:
    return f"was {row.then or 'none'}, is {row.now or 'none'}"
