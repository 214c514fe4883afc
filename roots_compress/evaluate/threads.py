"""How many threads a timing uses unless it is told: one for each physical core that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from roots_compress.run.machine import usable_cores

TOPOLOGY = Path("/sys/devices/system/cpu")
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads() -> int:
    """Return the physical cores this process may use: by its affinity, and by its container's CPU quota.

    Two hardware threads of a core share its arithmetic units, so a second adds no speed to matrix products.
    """
    return max(1, min(physical_cores(), cgroup_cores(CGROUP_QUOTA)))


def physical_cores(topology: Path = TOPOLOGY) -> int:
    """Return the distinct cores among the processors in this process's affinity.

    Where the system does not tell (it is not Linux), the logical processors are counted.
    """
    if not hasattr(os, "sched_getaffinity"):
        return usable_cores()
    siblings = set()
    for processor in os.sched_getaffinity(0):
        try:
            path = topology / f"cpu{processor}" / "topology" / "thread_siblings_list"
            siblings.add(path.read_text(encoding="ascii").strip())
        except OSError:
            return usable_cores()
    return len(siblings)


def cgroup_cores(quota: Path) -> int:
    """Return how many cores' time a control group's quota allows, rounded up; all cores if there is none."""
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return max(1, -(-int(limit) // int(period)))
    except (OSError, ValueError):
        return usable_cores()
