"""Processes that start at once: a server has imported what they need, and forks itself for each.

    python -m tests.fork_server ADDRESS MODULE

imports a module, calls its `warm_up()`, and serves at a socket until its standard input ends. A request is a
line of JSON, sent with the file descriptors that become streams 0, 1 and 2 of the new process:

    {"arguments": [...], "folder": path, "group": 0, "environment": null}

The process carries out `work(*arguments)` of the module, in the folder, in the process group (0: a new one),
and in the environment where one is given. The answers are its id and, when it has ended, its exit code or
minus the signal that killed it, a line each.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from tests.forked import end_with, share_with_children

MOST_BYTES = 1 << 16
"""That are read of a request at once."""
MOST_SECONDS = 120.0
"""That a server may take to import what it needs."""
SERVE = (
    "import importlib, sys; from tests.fork_server import serve; "
    "serve(sys.argv[1], importlib.import_module(sys.argv[2]))"
)


class Server:
    """The server of a module, which ends with the `with` block, or with this process.

    Args:
        module: whose `warm_up` the server calls, and whose `work` is done by its processes.
        environment: of the server, where it differs from this process's.
        parent: the address of a server that has the libraries already, and forks this one. Its `work` carries
            out Python code.
    """

    def __init__(
        self, module: str, environment: Mapping[str, str] | None = None, *, parent: str | None = None
    ) -> None:
        root = str(Path(__file__).parents[1])
        # The server removes the folder.
        self.address = str(Path(tempfile.mkdtemp(prefix="roots-fork-"), "server"))
        (theirs, ours), null = os.pipe(), os.open(os.devnull, os.O_WRONLY)
        self._alive = ours
        self._wait: Callable[[], int]
        if parent is None:
            self._wait = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", self.address, module],
                stdin=theirs,
                stdout=null,
                cwd=root,
                env={**os.environ, "PYTHONPATH": root, **(environment or {})},
            ).wait
        else:
            self._wait = Process(parent, [SERVE, self.address, module], (theirs, null, 2), folder=root).wait
        os.close(theirs)
        os.close(null)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the processes, and end the server."""
        os.close(self._alive)
        self._wait()


class Process:
    """A process that a server forked.

    Args:
        address: of the server.
        arguments: of the module's `work`.
        streams: what becomes its standard input, output and error.
        folder: that it works in.
        group: the process group that it joins, 0 for a new one.
        environment: that it has, where it is not the server's.
    """

    def __init__(
        self,
        address: str,
        arguments: Sequence[str],
        streams: tuple[int, int, int],
        *,
        folder: str | Path,
        group: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "group": group,
            "environment": None if environment is None else {**environment},
        }
        sent = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        wait_for(address)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(address)
        line = json.dumps(request).encode() + b"\n"
        self._server.sendall(line[self._server.sendmsg([line], sent) :])
        self._answers = self._server.makefile()
        self.pid = int(self._answers.readline())

    def running(self, seconds: float) -> bool:
        """Whether it still runs after so many seconds."""
        return not select.select([self._server], [], [], seconds)[0]

    def wait(self) -> int:
        """Wait for its end, and return its exit code, or minus the signal."""
        with self._server, self._answers:
            return int(self._answers.readline())


def wait_for(address: str) -> None:
    """Wait until a server has imported what it needs."""
    deadline = time.monotonic() + MOST_SECONDS
    while not Path(address).exists():
        assert Path(address).parent.exists(), f"the server at {address} ended"
        assert time.monotonic() < deadline, f"the server at {address} did not start"
        time.sleep(0.02)


def serve(address: str, module: ModuleType) -> None:
    """Fork a process for each request, until standard input ends and all processes have."""
    try:
        module.warm_up()
        share_with_children()
        _fork_on_request(address, module)
    finally:
        shutil.rmtree(Path(address).parent)


def _fork_on_request(address: str, module: ModuleType) -> None:
    ended, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}-")
    listening.listen()
    Path(f"{address}-").rename(address)
    sources = {listening.fileno(), ended.fileno(), sys.stdin.fileno()}
    running: dict[int, socket.socket] = {}
    while sys.stdin.fileno() in sources or running:
        ready = select.select([*sources], [], [])[0]
        sources -= {sys.stdin.fileno()}.intersection(ready)
        if ended.fileno() in ready:
            ended.recv(MOST_BYTES)
            for process in [*running]:
                number, status = os.waitpid(process, os.WNOHANG)
                if number:
                    _tell(running.pop(process), os.waitstatus_to_exitcode(status))
        if listening.fileno() in ready:
            connection, _ = listening.accept()
            request, streams = _received(connection)
            process = os.fork()
            if process == 0:
                for each in (listening, ended, told, connection, *running.values()):
                    each.close()
                end_with(lambda: _be(module, request, streams))  # noqa: B023
            _join(process, request["group"])
            for stream in streams:
                os.close(stream)
            running[process] = connection
            _tell(connection, process)


def _received(connection: socket.socket) -> tuple[dict[str, Any], Sequence[int]]:
    message, streams = b"", array.array("i")
    while not message.endswith(b"\n"):
        part, ancillary, _, _ = connection.recvmsg(MOST_BYTES, socket.CMSG_SPACE(3 * streams.itemsize))
        assert part, "the request ended early"
        message += part
        for _, _, sent in ancillary:
            streams.frombytes(sent)
    return json.loads(message), streams


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # Who asked may have been killed.
        connection.sendall(f"{number}\n".encode())


def _join(process: int, group: int) -> None:
    with suppress(OSError):  # The process, or who leads the group, may have ended.
        os.setpgid(process, group)


def _be(module: ModuleType, request: dict[str, Any], streams: Sequence[int]) -> None:
    """Be the process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _join(0, request["group"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
    os.chdir(request["folder"])
    if request["environment"] is not None:
        os.environ.clear()
        os.environ.update(request["environment"])
    module.work(*request["arguments"])


if __name__ == "__main__":
    serve(sys.argv[1], importlib.import_module(sys.argv[2]))
