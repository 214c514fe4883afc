"""Returns freed memory that the C library keeps."""

from __future__ import annotations

import ctypes
import sys

MUCH = 1 << 28
"""Free bytes that are worth returning."""

_COUNTS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`; `fordblks` counts the free bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in _COUNTS.split()]


def hand_back_free_memory(*, least: int = MUCH) -> None:
    """Return free memory to the system if the C library is glibc and keeps much of it.

    glibc keeps freed memory between blocks that are still in use. Freed weights, or the gradients of a step,
    leave hundreds of megabytes there, into which the next large tensors often do not fit. Small amounts stay,
    because a returned page that is used again costs a page fault.

    Args:
        least: the least free bytes to return.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallinfo2"):
        return
    libc.mallinfo2.restype = _MallocInfo
    if libc.mallinfo2().fordblks >= least:
        libc.malloc_trim(0)
