"""The control groups that this process runs in: what they let it have of processors and of memory.

A limit on a group holds for all groups below it, so the group of the process and each one above it count, as
far up as a container shows them. Both versions of Linux's interface are read, and both at once where a system
mounts both: version 2 keeps all controllers in one tree, version 1 each in one of its own. See the kernel's
documents `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`.

Whatever cannot be read sets no limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
MOUNT = Path("/sys/fs/cgroup")
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How `/proc/self/mountinfo` writes spaces and the like."""


@dataclass(frozen=True)
class ControlGroups:
    """The folders of this process's groups, of either version, inmost first."""

    unified: tuple[Path, ...]
    """Version 2."""
    processors: tuple[Path, ...]
    """Version 1: the controller `cpu`."""
    sets: tuple[Path, ...]
    """Version 1: the controller `cpuset`."""
    memory: tuple[Path, ...]
    """Version 1: the controller `memory`."""

    @classmethod
    def own(cls, proc: Path = PROC, mount: Path = MOUNT) -> ControlGroups:
        """Return this process's groups.

        Mounts elsewhere than at `mount` are found in `mountinfo`.
        """
        groups = dict(_groups(proc / "cgroup"))
        mounts = list(_mounts(proc / "mountinfo"))
        return cls(*(_folders(name, groups, mounts, mount) for name in ("", "cpu", "cpuset", "memory")))

    def cores(self) -> float | None:
        """Return how many processors' time the quotas allow; None where there is no quota."""
        found = [_quota(*_words(folder / "cpu.max", 2)) for folder in self.unified]
        found += [
            _quota(*_words(folder / "cpu.cfs_quota_us", 1), *_words(folder / "cpu.cfs_period_us", 1))
            for folder in self.processors
        ]
        return min((each for each in found if each is not None), default=None)

    def allowed(self) -> set[int] | None:
        """Return the processors that the groups may run on; None where they do not say.

        An empty set is written where a group takes its parent's.
        """
        names = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
        found: set[int] | None = None
        for folder in (*self.unified, *self.sets):
            processors = next(filter(None, (_processors(folder / name) for name in names)), None)
            if processors:
                found = processors if found is None else found & processors
        return found

    def memory_room(self, swap_free: int = 0) -> int | None:
        """Return the bytes that may still be taken; None where there is no limit.

        What files hold of a group's memory is given back on demand; what programs hold is not.

        Args:
            swap_free: bytes of swap that the system has left, which a group may use too where it says so.
        """
        rooms = [_room_2(folder, swap_free) for folder in self.unified]
        rooms += [_room_1(folder, swap_free) for folder in self.memory]
        return min((max(0, room) for room in rooms if room is not None), default=None)


def _groups(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each controller with the path of its group; version 2 goes by the name of ''."""
    for line in _lines(path):
        _number, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if colon:
            for controller in controllers.split(","):
                yield controller, group


def _mounts(path: Path) -> Iterator[tuple[set[str], str, Path]]:
    """Yield of each mounted tree its controllers ('' for version 2), the group at its root, and its place."""
    for line in _lines(path):
        front, dash, back = line.partition(" - ")
        fields, kind = front.split(" "), back.split(" ")
        if not dash or len(fields) < 5 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = {""} if kind[0] == "cgroup2" else set(kind[-1].split(","))
        yield controllers, _plain(fields[3]), Path(_plain(fields[4]))


def _plain(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _folders(
    controller: str, groups: dict[str, str], mounts: list[tuple[set[str], str, Path]], custom: Path
) -> tuple[Path, ...]:
    """Return the folders of a controller's group and of those above it, inmost first, each once."""
    group = groups.get(controller)
    if group is None:
        return ()
    found: dict[Path, None] = {}
    for controllers, root, place in mounts:
        if controller in controllers:
            found |= dict.fromkeys(_upwards(place, _below(group, root)))
    # Mounts may lie over one another, and a container may show none of them: the usual places count as well.
    for place in _usual_places(controller, custom):
        found |= dict.fromkeys(_upwards(place, PurePosixPath(group.lstrip("/"))))
    return tuple(found)


def _usual_places(controller: str, custom: Path) -> list[Path]:
    if not controller:
        return [custom, custom / "unified"]
    joint = {"cpu": ("cpu", "cpu,cpuacct", "cpuacct,cpu")}.get(controller, (controller,))
    return [custom / name for name in joint]


def _below(group: str, root: str) -> PurePosixPath:
    """Return a group's path from the root of what is mounted, which may be a group itself."""
    path = PurePosixPath(group)
    return path.relative_to(root) if path.is_relative_to(root) else PurePosixPath(group.lstrip("/"))


def _upwards(place: Path, group: PurePosixPath) -> Iterator[Path]:
    """Yield the group's folder and those above it, up to where the tree is mounted.

    A container may be told a path that begins further up than what it is shown: leading parts are left out
    until the rest is there. Where nothing of it is, the mounted root is the group.
    """
    told = [part for part in group.parts if part not in ("/", "..")]
    parts = next((told[start:] for start in range(len(told)) if _is_folder(place, told[start:])), told)
    for length in range(len(parts), -1, -1):
        yield place.joinpath(*parts[:length])


def _is_folder(place: Path, parts: list[str]) -> bool:
    try:
        return place.joinpath(*parts).is_dir()
    except OSError:  # such as a name too long for a file
        return False


def _quota(quota: str = "max", period: str = "") -> float | None:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # 'max', or nothing that can be read
    return share if share > 0 else None  # version 1 writes -1 for none


def _processors(path: Path) -> set[int]:
    """Return the processors of a list such as `0-2,7`."""
    found: set[int] = set()
    try:
        for part in "".join(_words(path, 1)).split(","):
            first, dash, last = part.partition("-")
            found |= set(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        return set()
    return found


def _room_2(folder: Path, swap_free: int) -> int | None:
    # Above `high` a group is slowed down until it gives memory back, which programs cannot.
    limits = [
        limit for name in ("memory.max", "memory.high") if (limit := _number(folder / name)) is not None
    ]
    if not limits:
        return None
    held = _held(folder, ("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable"))
    if held is None:
        held = _number(folder / "memory.current") or 0
    swap = 0
    if words := _words(folder / "memory.swap.max", 1):
        most = swap_free if words[0] == "max" else (_number(folder / "memory.swap.max") or 0)
        swap = max(0, most - (_number(folder / "memory.swap.current") or 0))
    return min(limits) - held + min(swap, swap_free)


def _room_1(folder: Path, swap_free: int) -> int | None:
    stat = _fields(folder / "memory.stat")
    # The second is the least limit of all groups above, those that a container is not shown too.
    limits = [_number(folder / "memory.limit_in_bytes"), stat.get("hierarchical_memory_limit")]
    known = [limit for limit in limits if limit is not None]
    if not known:
        return None
    held = _held(folder, ("total_rss", "total_shmem"))
    if held is None:
        held = _number(folder / "memory.usage_in_bytes") or 0
    # This limit is one on memory and swap together.
    together = _number(folder / "memory.memsw.limit_in_bytes") or 0
    swap = max(0, together - min(known) - stat.get("total_swap", 0))
    return min(known) - held + min(swap, swap_free)


def _held(folder: Path, names: tuple[str, ...]) -> int | None:
    """Return what a group holds and cannot give back, its subgroups included; None where it does not say."""
    fields = _fields(folder / "memory.stat")
    return sum(fields.get(name, 0) for name in names) if names[0] in fields else None


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines such as `anon 1024`."""
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    words = _words(path, 1)
    return int(words[0]) if words and words[0].isdecimal() else None


def _words(path: Path, count: int) -> list[str]:
    """Return the words of a file that holds so many; none where it is absent or holds something else."""
    words = [word for line in _lines(path) for word in line.split()]
    return words if len(words) == count else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (OSError, ValueError):
        return []
