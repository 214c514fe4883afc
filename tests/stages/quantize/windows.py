"""Calibration windows of random tokens."""

from __future__ import annotations

import numpy as np

from roots_compress.data.windows import PackedWindows
from tests.tiny import tiny_tokens


def random_windows(windows: int = 6, tokens: int = 32) -> PackedWindows:
    """Return windows of one document each."""
    ids = tiny_tokens(windows, tokens).numpy()
    return PackedWindows(input_ids=ids, labels=ids, segment_ids=np.zeros_like(ids))
