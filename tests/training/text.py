"""Packed windows made by hand, so that these tests need no corpus."""

from __future__ import annotations

import numpy as np

from roots_compress.data.windows import PackedWindows, following
from roots_compress.training.batches import Batch, BatchOrder
from tests.tiny import VOCAB_SIZE


def windows(count: int = 12, tokens: int = 16, *, seed: int = 0, unscored: float = 0.3) -> PackedWindows:
    """Return random windows of two documents each, in which a part of the tokens is not scored."""
    generator = np.random.default_rng(seed)
    input_ids = generator.integers(3, VOCAB_SIZE, (count, tokens))
    segment_ids = np.zeros_like(input_ids)
    segment_ids[:, tokens // 2 :] = 1
    scored = generator.random(input_ids.shape) >= unscored
    scored[:, [0, tokens // 2]] = False
    return PackedWindows(input_ids, following(input_ids, scored), segment_ids)


def as_batch(packed: PackedWindows) -> Batch:
    """Return all windows as one batch."""
    return BatchOrder(packed, seed=0).at(range(len(packed.input_ids)), "cpu")
