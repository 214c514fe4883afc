"""MinHash: the similarity of two texts from some hundred numbers of each (Broder 1997), and bands."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from roots_compress.data.prepare.words import FACTOR, Hashes, mixed

Signature = NDArray[np.uint32]

BATCH_RUNS = 1024
"""Runs of words that are hashed at a time: about a megabyte for 128 hash functions."""
POINTS = 200
"""At which a band's probability is integrated."""


class MinHash:
    """Signatures of texts by a number of hash functions, and their bands.

    Each function is `a * x + b`, of which the upper 32 of 64 bits are taken (Dietzfelbinger 1996).

    Args:
        threshold: least similarity of texts that should share a band.
    """

    def __init__(self, hashes: int, threshold: float) -> None:
        rng = np.random.default_rng(hashes)
        self._factors = rng.integers(0, 1 << 64, hashes, np.uint64) | np.uint64(1)
        self._offsets = rng.integers(0, 1 << 64, hashes, np.uint64)
        self.bands, self._rows = best_bands(hashes, threshold)

    def signature(self, run_hashes: Hashes) -> Signature:
        """Return the smallest value of each function over a text's runs of words, `[hashes]`."""
        distinct = np.unique(run_hashes)
        smallest = np.full(len(self._factors), np.iinfo(np.uint64).max, np.uint64)
        for start in range(0, len(distinct), BATCH_RUNS):
            values = distinct[start : start + BATCH_RUNS, None] * self._factors + self._offsets
            np.minimum(smallest, values.min(axis=0), out=smallest)
        return (smallest >> np.uint64(32)).astype(np.uint32)

    def keys(self, signature: Signature) -> Hashes:
        """Return a hash of each band, `[bands]`. Two texts are compared if they have one in common."""
        rows = signature[: self.bands * self._rows].reshape(self.bands, self._rows).astype(np.uint64)
        keys = np.arange(self.bands, dtype=np.uint64)
        for column in rows.T:
            keys = keys * FACTOR + column
        return mixed(keys)


@cache
def best_bands(hashes: int, threshold: float) -> tuple[int, int]:
    """Return the numbers of bands and rows that find texts above a similarity, and few others.

    Two texts of similarity s share one of b bands of r rows with probability 1 - (1 - s^r)^b. The chosen b
    and r minimise the area of misses above the threshold, counted twice, plus the area of false finds below
    it: a false find only costs a comparison, but a missed duplicate stays.
    """
    below = np.linspace(0.0, threshold, POINTS)
    above = np.linspace(threshold, 1.0, POINTS)

    def error(bands: int, rows: int) -> float:
        false = 1 - (1 - below**rows) ** bands
        missed = (1 - above**rows) ** bands
        return float(false.mean() * threshold + 2 * missed.mean() * (1 - threshold))

    shapes = [(hashes // rows, rows) for rows in range(1, hashes + 1)]
    return min(shapes, key=lambda shape: error(*shape))
