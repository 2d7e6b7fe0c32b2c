"""Fingerprints of latents: the same on every machine, and right about how far latents are apart."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from pipeline.metadata.fingerprint import SKETCH, LatentFingerprint, fingerprint


@pytest.mark.parametrize("where", ["everywhere", "one channel", "a corner"])
def test_a_difference_is_estimated_without_the_latents(where):
    """Over many pairs: right on average, and hardly ever far off."""
    generator = torch.Generator().manual_seed(3)
    ratios = []
    for _ in range(200):
        x = torch.randn((1, 4, 32, 24), generator=generator)
        change = 0.01 * torch.randn(x.shape, generator=generator)
        if where == "one channel":
            change[:, 1:] = 0
        if where == "a corner":
            change[..., 6:, :] = change[..., :, 6:] = 0
        true = change.square().mean().sqrt()
        ratios.append(fingerprint(x).rms_difference(fingerprint(x + change)) / float(true))
    ratios = np.array(ratios)
    assert abs((ratios**2).mean() - 1) < 0.06
    assert 0.08 < ratios.std() < 0.18  # 1 / sqrt(2 * 32) = 0.125
    assert fingerprint(x).rms_difference(fingerprint(x.clone())) == 0


def splitmix64(n: int) -> int:
    """Vigna's generator, its n-th number."""
    z = n * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_a_fingerprint_is_the_same_on_every_machine():
    """By the bits, one number after the other; and frozen, for receipts outlive a version."""
    latents = torch.arange(256, dtype=torch.float32).reshape(1, 4, 8, 8) / 16
    sums = [0.0] * SKETCH
    for place, number in enumerate(latents.flatten().tolist()):
        bits = splitmix64(place + 1)
        sums[bits % SKETCH] += -number if bits >> 63 else number
    made = fingerprint(latents)
    assert made.sketch.tolist() == [total / 16 for total in sums]  # of 256 numbers
    digest = hashlib.sha256(struct.pack("<256f", *latents.flatten().tolist())).hexdigest()
    assert made.digest == digest[:16]
    text = str(made)
    assert text.startswith("d5f425b91ae6ea27:AADSvgCA7D8AAJy+AID7vwAAqr8AAGW/AAC+PgAA2D8AQFvA")
    assert LatentFingerprint.parse(text).rms_difference(made) == 0
    assert text == str(fingerprint(latents.double()))
