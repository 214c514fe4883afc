"""The store's real system calls, under strace: held against those that our layer sees, and killed at each.

    python -m tests.faults.strace SCENARIO RUN

is the process that is watched: it carries out a scenario in a run's folder, under the layer of `disk.py`, and
prints what that layer saw. Elsewhere the layer kills by refusing to go on; here it is the kernel that kills.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.faults.crashes import begun, go_on, recorded
from tests.faults.scenarios import SCENARIOS, Scenario, state_of

KINDS = {
    **dict.fromkeys(("open", "openat", "openat2", "creat"), "create"),
    **dict.fromkeys(("write", "pwrite64", "writev", "pwritev", "pwritev2"), "write"),
    **dict.fromkeys(("fsync", "fdatasync"), "fsync"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "rename"),
    **dict.fromkeys(("mkdir", "mkdirat"), "mkdir"),
    **dict.fromkeys(("unlink", "unlinkat"), "unlink"),
    "rmdir": "rmdir",
}
"""What the layer calls each system call."""
OTHERS = (
    *("truncate", "ftruncate", "fallocate", "copy_file_range", "sendfile", "splice", "link", "linkat"),
    *("symlink", "symlinkat", "mknod", "mknodat", "sync", "syncfs", "sync_file_range"),
)
"""Further calls that change files. The layer knows none of them: one that is seen is one that it misses."""
_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+|\?).*")
_PATH = re.compile(r'(?:\d+|AT_FDCWD)<([^>]*)>|"([^"]*)"')

Seen = tuple[str, ...]
"""Kind and path of an operation, relative to the run, and where a rename leads."""


@dataclass(frozen=True)
class Call:
    """A system call that changed files, or made a change last."""

    name: str
    number: int
    """Which of the process's calls of this name it is, from 1."""
    seen: Seen


@cache
def why_not() -> str | None:
    """Return why no process can be watched here; None where one can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"strace may not watch a process: {tried.stderr.strip()}" if tried.returncode else None


def check_layer(scenario: Scenario, folder: Path) -> int:
    """Compare the calls that the kernel served with those that the layer saw; return their number.

    Raises:
        AssertionError: they differ in any, or in their order.
    """
    calls, said = _watched(scenario, begun(scenario, folder), folder / "log")
    layer = [tuple(operation) for operation in json.loads(said)]
    assert [call.seen for call in calls] == layer
    return len(calls)


def check_kernel_kills(scenario: Scenario, folder: Path, *, sample: int | None, rng: random.Random) -> int:
    """Have the kernel kill a scenario as it makes its durable system calls; return how often.

    Args:
        scenario: what is done.
        folder: an empty folder to do it in.
        sample: how many of the calls to kill at; None for all.
        rng: draws them.

    Raises:
        AssertionError: a kill struck elsewhere, or left neither the old state nor the new one, or the same
            command again does not end where it should.
    """
    before = begun(scenario, folder)
    run, log = folder / "run", folder / "log"
    shutil.copytree(before, run)
    calls, _ = _watched(scenario, run, log)
    aims = range(len(calls)) if sample is None else sorted(rng.sample(range(len(calls)), sample))
    for aim in aims:
        shutil.rmtree(run)
        shutil.copytree(before, run)
        done, _ = _watched(scenario, run, log, kill_at=calls[aim])
        where = f"{scenario.name}, killed at call {aim} of {len(calls)}, {calls[aim].name}"
        assert len(done) == aim, f"{where}: struck after {len(done)}"
        assert scenario.allows(state_of(run)), where
        go_on(scenario, run)
        assert scenario.is_complete(state_of(run)), f"{where}: going on does not reach the end"
    return len(aims)


def _watched(scenario: Scenario, run: Path, log: Path, kill_at: Call | None = None) -> tuple[list[Call], str]:
    """Carry out a scenario in a process under strace; return its calls in `run` and what it printed."""
    watch = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(log)]
    # The question mark: not every architecture has every call.
    watch += ["-e", "trace=" + ",".join(f"?{name}" for name in (*KINDS, *OTHERS)), "-e", "signal=none"]
    if kill_at:
        watch += ["-e", f"inject={kill_at.name}:signal=KILL:when={kill_at.number}"]
    ended = subprocess.run(
        [*watch, sys.executable, "-B", "-m", "tests.faults.strace", scenario.name, str(run)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == (-signal.SIGKILL if kill_at else 0), ended.stderr
    return _calls(log.read_text(), run), ended.stdout


def _calls(log: str, run: Path) -> list[Call]:
    """Return the calls that changed a run's folder, or the one that holds it, and succeeded; in order."""
    counts = dict.fromkeys((*KINDS, *OTHERS), 0)
    calls = []
    for line in log.splitlines():
        if not (match := _LINE.fullmatch(line)):
            continue
        name, arguments, result = match.groups()
        counts[name] += 1
        kind = KINDS.get(name, name)
        if kind == "create" and name != "creat" and not re.search("O_CREAT|O_TRUNC", arguments):
            continue
        if "AT_REMOVEDIR" in arguments:
            kind = "rmdir"
        paths = _paths(arguments)
        if result.isdecimal() and any(path.is_relative_to(run.parent) for path in paths):
            calls.append(Call(name, counts[name], (kind, *(os.path.relpath(path, run) for path in paths))))
    return calls


def _paths(arguments: str) -> list[Path]:
    """Return the paths that a call names: of its descriptors, or below them."""
    paths: list[Path] = []
    folder = Path()
    for descriptor, name in _PATH.findall(arguments):
        if descriptor:
            folder = Path(descriptor)
        else:
            paths.append(folder / name)
    return paths or [folder]


def main(arguments: Sequence[str]) -> None:
    """Be the process that is watched."""
    (scenario,) = (each for each in SCENARIOS if each.name == arguments[0])
    run = Path(arguments[1])
    lines = []
    for operation in recorded(scenario.act, run):
        paths = [operation.path, *([operation.target] if operation.target else [])]
        lines.append([operation.kind, *(os.path.relpath(path, run) for path in paths)])
    sys.stdout.write(json.dumps(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
