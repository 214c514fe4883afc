"""Free memory goes back to the system where the C library can be told to."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from roots_compress.training.memory import MUCH, hand_back_free_memory

BLOCK = 100_000
"""Bytes; small enough for the heap, from which only the end goes back by itself."""


def resident_bytes() -> int:
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="the C library is not glibc",
)
def test_memory_freed_below_a_block_in_use_is_handed_back() -> None:
    blocks = [bytearray(b"x") * BLOCK for _ in range(MUCH * 3 // 2 // BLOCK)]
    kept = blocks[-1]
    del blocks
    before = resident_bytes()
    hand_back_free_memory()
    assert resident_bytes() < before - MUCH
    assert len(kept) == BLOCK
