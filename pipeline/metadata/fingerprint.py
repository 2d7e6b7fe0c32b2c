"""Compute fingerprints of latents, which tell whether two are identical or how much they differ."""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch

SKETCH = 32  # numbers in a sketch, with which an RMS is estimated to about 12 %


class LatentFingerprint(NamedTuple):
    """A short description of latents, to find later whether and how much other latents differ.

    digest: the first 16 hex digits of the SHA-256 of the latents as little-endian float32. sketch:
    a random projection of the latents, (32,) float64; the distance of two sketches estimates that
    of the latents. str() returns both as text, for a picture's metadata.
    """

    digest: str
    sketch: np.ndarray

    def rms_difference(self, other: LatentFingerprint) -> float:
        """Estimate the root mean square difference of the two latents from their fingerprints."""
        return float(((self.sketch - other.sketch) ** 2).sum() ** 0.5)

    def __str__(self) -> str:
        return f"{self.digest}:{base64.b64encode(self.sketch.astype('<f4').tobytes()).decode()}"

    @classmethod
    def parse(cls, text: str) -> LatentFingerprint:
        """Return the fingerprint that str() turned into `text`; ValueError for any other text."""
        import numpy as np

        digest, _, code = text.partition(":")
        try:
            sketch = np.frombuffer(base64.b64decode(code, validate=True), "<f4")
        except binascii.Error:
            raise ValueError("a fingerprint's sketch is no base64") from None
        if len(digest) != 16 or set(digest) - set("0123456789abcdef"):
            raise ValueError("a fingerprint has no hash")
        if sketch.shape != (SKETCH,) or not np.isfinite(sketch).all():
            raise ValueError(f"a fingerprint's sketch is not of {SKETCH} numbers")
        return cls(digest, sketch.astype(np.float64))


def fingerprint(latents: torch.Tensor) -> LatentFingerprint:
    """Return the hash and the random projection of latents (1, C, h, w), to compare them later.

    The projection is a Count Sketch (Charikar, Chen, Farach-Colton, ICALP 2002): each of the
    latents' n numbers, times a random sign, is added to one of 32 sums, and the sums are divided by
    sqrt(n). The squared distance of two sketches is an unbiased estimate of the latents' mean
    squared difference.
    """
    import numpy as np
    import torch

    numbers = latents.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").ravel()
    buckets, signs = _sketch_buckets(numbers.size)
    sums = np.bincount(buckets, weights=numbers * signs, minlength=SKETCH)
    sketch = (sums / numbers.size**0.5).astype(np.float32).astype(np.float64)
    return LatentFingerprint(hashlib.sha256(numbers.tobytes()).hexdigest()[:16], sketch)


@lru_cache(maxsize=4)
def _sketch_buckets(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the random choices of a Count Sketch, which projects `count` numbers onto 32 sums.

    These are the index of the sum that each number is added to, (count,) int64 in 0 to 31, and its
    sign, (count,) float32. Both are bits of splitmix64 of the number's index, so that they are the
    same on every machine and with every version of NumPy.
    """
    import numpy as np

    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    buckets = (z % np.uint64(SKETCH)).astype(np.int64)
    return buckets, np.where(z >> np.uint64(63), -1, 1).astype(np.float32)
