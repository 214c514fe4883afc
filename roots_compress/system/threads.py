"""How many threads are used where nobody says: one for each physical core that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from roots_compress.errors import InputError
from roots_compress.system.cgroup import ControlGroups
from roots_compress.system.machine import usable_cores

MOST_THREADS = 1024
"""As many as the largest machines have cores; where many more are asked for, the system kills the process."""
TOPOLOGY = Path("/sys/devices/system/cpu")
LIBRARY_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""What torch, numpy and the tokenizers library read when they are loaded."""


def default_threads(topology: Path = TOPOLOGY, groups: ControlGroups | None = None) -> int:
    """Return the physical cores this process may use: by its affinity, and by its control groups' limits.

    Two hardware threads of a core share its arithmetic units, so a second adds no speed to matrix products.
    A part of a core counts as one: half a core is one thread, one and a half are two.
    """
    groups = groups or ControlGroups.own()
    cores, quota = physical_cores(topology, groups.allowed()), groups.cores()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def threads_or_default(threads: int | None) -> int:
    """Return how many threads a caller asks for, or else the default.

    Raises:
        InputError: it is no number of threads.
    """
    if threads is None:
        return default_threads()
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise InputError(
            f"is {threads!r:.60}",
            where="threads",
            remedy=f"Give a whole number from 1 to {MOST_THREADS:,}.",
        )
    return threads


def physical_cores(topology: Path = TOPOLOGY, allowed: set[int] | None = None) -> int:
    """Return the distinct cores among the processors in this process's affinity.

    Where the system does not tell (it is not Linux), the logical processors are counted.
    """
    if not hasattr(os, "sched_getaffinity"):
        return usable_cores()
    own = os.sched_getaffinity(0)
    usable = own if allowed is None else (own & allowed or own)
    siblings = set()
    for processor in usable:
        try:
            path = topology / f"cpu{processor}" / "topology" / "thread_siblings_list"
            siblings.add(path.read_text(encoding="ascii").strip())
        except OSError:
            return len(usable)
    return len(siblings)


def bound_libraries() -> None:
    """Have libraries that are not loaded yet start as many threads as `default_threads`, unless told already.

    They count the machine's processors, and know nothing of a container's quota.
    """
    for name in LIBRARY_SETTINGS:
        os.environ.setdefault(name, str(default_threads()))
