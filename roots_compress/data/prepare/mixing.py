"""How often each document of a source is in the mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roots_compress.data.prepare.words import Hashes, drawn

MIXING_STREAM, ORDER_STREAM = 0, 1


def repeats(size_bytes: Sequence[int], weights: Sequence[float | None], most: float) -> list[float]:
    """Return how often the documents of each source are in the mixture on average.

    Without weights each is there once. With weights the mixture is as large as possible, with shares in bytes
    by the weights, and no source repeated more than `most` times.

    Args:
        most: at least 1.
    """
    if None in weights:
        return [1.0] * len(size_bytes)
    pairs = list(zip(weights, size_bytes, strict=True))
    total = sum(weight for weight, size in pairs if weight and size)
    shares = [(weight or 0.0) / total if size else 0.0 for weight, size in pairs]
    mixture = min(most * size / share for size, share in zip(size_bytes, shares, strict=True) if share)
    return [share * mixture / size if size else 0.0 for size, share in zip(size_bytes, shares, strict=True)]


def copies(numbers: Hashes, average: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return how often each document is in the mixture: its average, randomly rounded up or down."""
    whole = np.floor(average)
    chance = drawn(seed, numbers, MIXING_STREAM).astype(np.float64) / math.ldexp(1.0, 64)
    return (whole + (chance < average - whole)).astype(np.int64)


def order_keys(numbers: Hashes, copy: NDArray[np.int64], seed: int) -> Hashes:
    """Return the sort keys of the documents: 64 random bits for each copy of each."""
    return drawn(seed, drawn(seed, numbers, ORDER_STREAM) + copy.astype(np.uint64), ORDER_STREAM)
