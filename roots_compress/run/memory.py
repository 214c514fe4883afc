"""What memory is still to be had, and what happens where there is no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roots_compress.errors import StageError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
_LACKING = ("can't allocate memory", "out of memory")
"""What torch says, on a CPU and on a GPU, in exceptions that it raises for much else too."""


def available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Return the bytes of memory and swap that are to be had, within this container's limit.

    None where the system does not tell (it is not Linux).
    """
    try:
        fields = _fields(meminfo)
        available = 1024 * (fields["MemAvailable:"] + fields["SwapFree:"])
    except (OSError, KeyError, ValueError):
        return None
    try:
        # What files take of a container's memory is given back on demand; what programs hold is not.
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        return min(available, limit - _fields(cgroup / "memory.stat")["anon"])
    except (OSError, KeyError, ValueError):
        return available


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines such as `MemAvailable:   24000 kB`."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) > 1}


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a lack of memory in the block into a StageError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _LACKING):
            raise
        raise StageError(
            "memory ran out",
            remedy="Close other programs, take a machine with more memory, or lower batch_size.",
            transient=True,
        ) from error
