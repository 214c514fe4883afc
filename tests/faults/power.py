"""Power loss: what a disk may hold when writes that were not synced are lost, each by itself.

The store's operations are recorded and replayed, up to each of them, in a model of a file system that knows
what is in memory and what is on the disk: a file's bytes get there when the file is synced, a folder's names
when the folder is. Of all else, any part may be lost; POSIX promises no more. Each such disk is written out,
and opened.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.faults.crashes import begun, go_on, recorded
from tests.faults.disk import Operation
from tests.faults.scenarios import Scenario, state_of

Kept = Literal["disk", "memory", "torn"]


@dataclass(eq=False)
class _Node:
    """A file or folder: what programs see of it, and what of that would survive."""

    is_folder: bool
    data: bytes = b""
    names: dict[str, _Node] = field(default_factory=dict)
    disk_data: bytes = b""
    disk_names: dict[str, _Node] = field(default_factory=dict)

    def sync(self) -> None:
        self.disk_data, self.disk_names = self.data, dict(self.names)


class _FileSystem:
    """The folder `root` and all below it; operations elsewhere are passed over."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _loaded(root)

    def apply(self, operation: Operation) -> None:
        """Do to the model what was done to the disk."""
        if operation.kind == "fsync" and operation.path == self._root:
            self._top.sync()
        if self._root not in operation.path.parents:
            return
        if operation.kind == "fsync":
            self._node(operation.path).sync()
            return
        folder, name = self._node(operation.path.parent), operation.path.name
        if operation.kind == "create":
            node = folder.names.setdefault(name, _Node(is_folder=False))
            node.data = b""
        elif operation.kind == "write":
            folder.names[name].data += operation.data
        elif operation.kind == "mkdir":
            folder.names[name] = _Node(is_folder=True)
        elif operation.kind == "rename":
            assert operation.target is not None
            self._node(operation.target.parent).names[operation.target.name] = folder.names.pop(name)
        else:
            del folder.names[name]

    def write(self, target: Path, kept: Callable[[_Node], Kept]) -> None:
        """Write out a disk on which of each file and folder as much is left as `kept` says."""
        _write(self._top, target, kept)

    def _node(self, path: Path) -> _Node:
        node = self._top
        for part in path.relative_to(self._root).parts:
            node = node.names[part]
        return node


def check_power_loss(
    scenario: Scenario, folder: Path, *, mixtures: int, rng: random.Random, every: int = 1
) -> int:
    """Cut the power after each operation of a scenario; return how many disks were opened.

    Of every prefix, the disk is tried with all that was not synced lost, and with a number of random mixtures
    of lost, kept and half written. (With nothing lost, it is what a kill leaves: `crashes.py`.)

    Args:
        scenario: what is done.
        folder: an empty folder to do it in.
        mixtures: how many for each prefix.
        rng: draws them.
        every: try only one in so many prefixes.

    Raises:
        AssertionError: a disk holds neither the old state nor the new one, or going on does not reach the
            end.
    """
    before = begun(scenario, folder)
    run = folder / "run"
    shutil.copytree(before, run)
    operations = recorded(scenario.act, run)
    shutil.rmtree(run)
    shutil.copytree(before, run)
    disks = _FileSystem(run)
    shutil.rmtree(run)
    opened = 0
    for count, operation in enumerate(operations):
        disks.apply(operation)
        if count % every:
            continue
        for name, kept in _losses(mixtures, rng):
            disks.write(run, kept)
            where = (
                f"{scenario.name}, {name} after operation {count + 1} of {len(operations)}, {operation.kind}"
            )
            assert scenario.allows(state_of(run)), where
            go_on(scenario, run)
            assert scenario.is_complete(state_of(run)), f"{where}: going on does not reach the end"
            shutil.rmtree(run)
            opened += 1
    return opened


def _losses(mixtures: int, rng: random.Random) -> Iterator[tuple[str, Callable[[_Node], Kept]]]:
    yield "all that was not synced lost", lambda _: "disk"
    for _ in range(mixtures):
        yield "a part lost", lambda _: rng.choice(("disk", "memory", "torn"))


def _loaded(path: Path) -> _Node:
    """Return what a file or folder holds, all of it on the disk."""
    node = _Node(is_folder=path.is_dir())
    if node.is_folder:
        node.names = {child.name: _loaded(child) for child in path.iterdir()}
    else:
        node.data = path.read_bytes()
    node.sync()
    return node


def _write(node: _Node, target: Path, kept: Callable[[_Node], Kept]) -> None:
    how = kept(node)
    if node.is_folder:
        target.mkdir()
        for name, child in (node.disk_names if how == "disk" else node.names).items():
            _write(child, target / name, kept)
    elif how == "torn" and node.data.startswith(node.disk_data):
        target.write_bytes(node.data[: (len(node.disk_data) + len(node.data)) // 2])
    else:
        target.write_bytes(node.disk_data if how == "disk" else node.data)
