"""Calibration windows of random tokens."""

from __future__ import annotations

import numpy as np

from roots_compress.data.windows import PackedWindows, following
from tests.tiny import tiny_tokens


def random_windows(windows: int = 6, tokens: int = 32) -> PackedWindows:
    """Return windows of one document each."""
    ids = tiny_tokens(windows, tokens).numpy()
    targets = following(ids, np.ones_like(ids, dtype=bool))
    return PackedWindows(ids, targets, np.zeros_like(ids))
