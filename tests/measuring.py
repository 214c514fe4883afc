"""Measuring processes that start at once.

A run starts one for each row and one for its timings. In runs as tiny as the tests', Python and ONNX Runtime
take longer to start there than all that is measured. So `forked` takes the place of
`roots_compress.evaluation.child.start`. Tests of these processes start them as users do (`fresh_children`).
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from roots_compress.evaluation import child
from tests.fork_server import Process, Server

ADDRESS = "ROOTS_TESTS_MEASURING"
"""The variable with the server's address; other servers of the tests hand it on to their processes."""
FRESH = child.start


class Forked:
    """A process of the server, as `subprocess.Popen` shows one."""

    returncode: int

    def __init__(self, module: str) -> None:
        """Fork `python -m module`, in this process's folder, group and environment."""
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_error, theirs_error) = (
            os.pipe() for _ in range(3)
        )
        theirs = theirs_in, theirs_out, theirs_error
        self._process = Process(
            address(),
            [module],
            theirs,
            folder=Path.cwd(),
            group=os.getpgid(0),
            environment=os.environ,
        )
        for number in theirs:
            os.close(number)
        self.stdin: IO[str] = os.fdopen(ours_in, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(ours_out, encoding="utf-8", errors="replace")
        self.stderr: IO[str] = os.fdopen(ours_error, encoding="utf-8", errors="replace")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            with suppress(BrokenPipeError):
                stream.close()
        self.returncode = self._process.wait()


def start_at_once() -> None:
    """Have this process, and those that it forks, start measuring processes by the server."""
    child.start = forked


def start_afresh() -> None:
    """Have them start measuring processes as users do."""
    child.start = FRESH


def forked(module: str) -> subprocess.Popen[str]:
    """Fork a measuring process."""
    return cast("subprocess.Popen[str]", Forked(module))


def address() -> str:
    """Return the server's address; start it where there is none."""
    if ADDRESS not in os.environ:
        os.environ[ADDRESS] = server().address
    return os.environ[ADDRESS]


@cache
def server() -> Server:
    """Return a server that ends with this process."""
    return Server(__name__)


def warm_up() -> None:
    """Import what measuring processes do, and no more: their memory is measured."""
    for name in ("memory", "speed"):
        importlib.import_module(f"roots_compress.evaluation.{name}")
    # No test asks how fast a tiny model is.
    sys.modules["roots_compress.evaluation.speed"].MIN_SECONDS = 0.005  # type: ignore[attr-defined]


def be_brief() -> None:
    """Use one thread where nobody asks for more, and time once what a forecast repeats until it is steady.

    Threads that wait for one another take most of a tiny model's time, all the more on a busy machine.
    """
    from roots_compress.pipeline.forecast import pace
    from roots_compress.system import threads

    threads.physical_cores = lambda *_: 1
    pace.STEADY_SECONDS = pace.SHORT_SECONDS = 1e-6


def work(module: str) -> None:
    """Be `python -m module`, already imported."""
    child.serve(sys.modules[module]._handle)
