"""Runs `roots-compress` on a case, in a forked child with a time limit, and says what it did wrong.

The child inherits every library already imported, so a case costs what the command itself costs.
"""

from __future__ import annotations

import os
import random
import resource
import select
import shutil
import signal
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tests.bad_inputs.cases import USAGE, Bench, Generator, Request, seeded
from tests.bad_inputs.hostile import HOSTILE, MARK
from tests.forked import be_the_command, share_with_children

MOST_CPU_SECONDS = 5.0
"""A refusal must take less; processor time, because the clock depends on what else the machine does."""
MOST_SECONDS = 180.0
"""After so long by the clock a child counts as hanging, whatever it waits for, and is killed."""
MOST_CHARACTERS = 5000
"""A message is to be read by a person; the longest path takes 4,095 of them."""
MOST_EXTRA_BYTES = 1 << 30
"""Memory that a refusal may take beyond what the libraries hold already."""

Snapshot = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    """Its exit code, or minus the signal that ended it."""
    output: str
    cpu_seconds: float
    extra_bytes: int
    changed: tuple[str, ...]
    """Paths that were made, changed or removed."""


@dataclass(frozen=True)
class Verdict:
    """A case and what was wrong with the answer to it; nothing, as it should be."""

    case: str
    faults: tuple[str, ...]
    outcome: Outcome
    request: Request


def warm_up() -> None:
    """Import what the commands import, once for all children, and keep their caches in a folder watched."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    import onnx  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers

    # A pool of threads does not survive a fork: a child would wait for it for ever.
    torch.set_num_threads(1)

    _ = transformers.AutoModelForCausalLM, transformers.AutoTokenizer
    import roots_compress.cli.app
    import roots_compress.pipeline.verify
    import roots_compress.search.run  # noqa: F401

    share_with_children()


def check(generator: Generator, number: int, good: Path, folder: Path, *, seed: int) -> Verdict:
    """Make a case, run its command, and judge the answer. The case's folder is removed afterwards.

    Args:
        generator: what makes it.
        number: which of its cases.
        good: the undamaged inputs.
        folder: where the case may have its folder.
        seed: of all cases.
    """
    place = folder / f"{generator.name.replace(' ', '-')}-{number}"
    place.mkdir()
    try:
        request = generator.make(Bench(place, good, seeded(generator, seed, number)))
        outcome = run(request.arguments, place)
        return Verdict(f"{generator.name} {number}", tuple(faults_of(request, outcome)), outcome, request)
    finally:
        shutil.rmtree(place, ignore_errors=True)


OWN_SCRIPT = files("roots_compress.report").joinpath("page", "sort.js").read_text(encoding="utf-8")
"""The one script of a page, by which its tables sort."""


def meet(name: str, good: Path, folder: Path) -> tuple[bool, list[str]]:
    """Have commands meet a hostile file; return whether it left its mark, and what else was wrong.

    A command may refuse it or make use of what is harmless in it. It may not end with a traceback, write
    control characters, or change a file that is `precious`.
    """
    place = folder / "hostile"
    place.mkdir()
    mark = place / MARK
    faults = []
    try:
        for arguments in HOSTILE[name](Bench(place, good, random.Random(name)), mark):
            precious = place / "precious"
            before = precious.read_bytes() if precious.exists() else b""
            outcome = run(arguments, place)
            if "Traceback" in outcome.output:
                faults.append(f"{arguments}: traceback: {outcome.output[-800:]}")
            if outcome.code not in (0, 1, USAGE):
                faults.append(f"{arguments}: exit code {outcome.code}")
            if strange := strange_characters(outcome.output):
                faults.append(f"{arguments}: wrote control characters {strange}")
            marked_up = "html" in arguments or "markdown" in arguments
            given = outcome.output.replace(f"<script>{OWN_SCRIPT}</script>", "", 1)
            if marked_up and ("<script" in given or "<img" in given):
                faults.append(f"{arguments}: wrote markup")
            if precious.exists() and precious.read_bytes() != before:
                faults.append(f"{arguments}: changed what is precious")
            if any(Path(path).name == MARK for path in outcome.changed) or mark.exists():
                faults.append(f"{arguments}: left its mark")
                return True, faults
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return False, faults


def strange_characters(text: str) -> list[int]:
    """Return the control characters in a text, which a terminal would act on."""
    return sorted({ord(char) for char in text if not char.isprintable() and char not in "\n\t"})


def run(arguments: tuple[str, ...], place: Path) -> Outcome:
    """Carry out a command in a folder, as a child; what it writes to its home counts as well."""
    with tempfile.TemporaryDirectory(prefix="bad-input-") as beside:
        home = Path(beside, "home")
        home.mkdir()
        log = Path(beside, "log")
        before = {**snapshot(place), **snapshot(home)}
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code, usage = _in_child(arguments, place, home, log)
        after = {**snapshot(place), **snapshot(home)}
        changed = tuple(sorted(path for path in before | after if before.get(path) != after.get(path)))
        output = log.read_text(encoding="utf-8", errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    return Outcome(code, output, cpu, max(0, usage.ru_maxrss - own) * 1024, changed)


def snapshot(folder: Path) -> Snapshot:
    """Return mode, size and time of change of everything below a folder, without opening anything."""
    found: Snapshot = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(parent, name)  # noqa: PTH118 (names may be such as Path would normalise)
            status = os.lstat(path)
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found[path] = (status.st_mode, size, status.st_mtime_ns)
    return found


def faults_of(request: Request, outcome: Outcome) -> list[str]:
    """Return what is wrong with an answer."""
    said = " ".join(outcome.output.replace("│", " ").split())
    faults = []
    if outcome.code != USAGE:
        faults.append(f"exit code {outcome.code}")
    if "Traceback" in outcome.output:
        faults.append("traceback")
    if "error" not in outcome.output.lower():
        faults.append("no error is named")
    if request.names not in said:
        faults.append(f"{request.names!r} is not named")
    if request.says not in said:
        faults.append(f"{request.says!r} is not said")
    if outcome.cpu_seconds > MOST_CPU_SECONDS:
        faults.append(f"took {outcome.cpu_seconds:.1f} s")
    if outcome.extra_bytes > MOST_EXTRA_BYTES:
        faults.append(f"took {outcome.extra_bytes >> 20} MB")
    if outcome.changed:
        faults.append(f"changed {', '.join(outcome.changed[:3])}")
    if len(outcome.output) > MOST_CHARACTERS:
        faults.append(f"said {len(outcome.output)} characters")
    if strange := strange_characters(outcome.output):
        faults.append(f"wrote control characters {strange}")
    return faults


def _in_child(
    arguments: tuple[str, ...], place: Path, home: Path, log: Path
) -> tuple[int, resource.struct_rusage]:
    """Fork, run the command there, and wait; a child that goes on for too long is killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    ended, alive = os.pipe()
    child = os.fork()
    if child == 0:
        be_the_command(arguments, log, lambda: _enter(place, home))
    os.close(alive)
    # The child alone holds the pipe's other end, so its end is the pipe's.
    if not select.select([ended], [], [], MOST_SECONDS)[0]:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    os.close(ended)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage


def _enter(place: Path, home: Path) -> None:
    """Have this process work in a folder and know no other home."""
    os.chdir(place)
    _bound_memory()
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME"):
        os.environ[name] = str(home)
    tempfile.tempdir = None


def _bound_memory() -> None:
    """Let the command take only so much, so that one that reads without end does not take the machine."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, which alone counts what a process has rather than what it might
        held = next(line for line in status.read_text().splitlines() if line.startswith("VmData:"))
        most = int(held.split()[1]) * 1024 + 2 * MOST_EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
