"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
import sys

MUCH = 1 << 28
"""Free bytes that are worth handing back."""

_COUNTS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`; `fordblks` counts the free bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in _COUNTS.split()]


def hand_back_free_memory(*, least: int = MUCH) -> None:
    """Hand free memory back to the system, where the C library is glibc and keeps much of it.

    glibc keeps what is freed between blocks that are still in use. Weights given up, or the gradients of a
    step, leave hundreds of megabytes in that way, into which the next large tensors often do not fit. Small
    amounts stay: a page that is handed back and used again costs a fault.

    Args:
        least: free bytes that are worth it.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallinfo2"):
        return
    libc.mallinfo2.restype = _MallocInfo
    if libc.mallinfo2().fordblks >= least:
        libc.malloc_trim(0)
