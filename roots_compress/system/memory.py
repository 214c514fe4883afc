"""What memory is still to be had, and what happens where there is no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roots_compress.errors import StageError
from roots_compress.system.cgroup import ControlGroups

MEMINFO = Path("/proc/meminfo")
STATM = Path("/proc/self/statm")
MORE_MEMORY = (
    "Close other programs, take a machine with more memory, or ask for less at a time: shorter contexts, a "
    "lower batch_size."
)
CLEAR_REFS = Path("/proc/self/clear_refs")
_LACKING = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation", "Failed to allocate")
"""What torch and ONNX Runtime say, on a CPU and on a GPU, in exceptions that they raise for much else too."""


def available_memory(meminfo: Path = MEMINFO, groups: ControlGroups | None = None) -> int | None:
    """Return the bytes of memory and swap that are to be had, within the limits of a container.

    None where the system does not tell (it is not Linux).
    """
    try:
        fields = _fields(meminfo)
        swap = 1024 * fields["SwapFree:"]
        available = 1024 * fields["MemAvailable:"] + swap
    except (OSError, KeyError, ValueError):
        return None
    room = (groups or ControlGroups.own()).memory_room(swap)
    return available if room is None else min(available, room)


def forget_peak() -> bool:
    """Have the system count this process's peak of memory from now on; return whether it does (Linux)."""
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines such as `MemAvailable:   24000 kB`."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) > 1}


def resident_bytes() -> int | None:
    """Return the bytes of memory that this process holds; None where the system does not tell (not Linux)."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _LACKING)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a lack of memory in the block into a StageError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise StageError("memory ran out", remedy=MORE_MEMORY, transient=True) from error
