"""A real shell for the blocks of a page, in which `roots-compress` and `python` start at once.

Both are small programs on PATH. They hand their arguments, folder and streams to a server that has imported
the package, and it forks a process that is the command.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tests.forked import end_with, share_with_children

CLIENT = """\
#!{python} -ISs
import array, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([{command!r}, os.getcwd(), os.environ.get("ROOTS_COPY"), *sys.argv[1:]]).encode()
streams = array.array("i", [0, 1, 2])
server.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.makefile().read() or 1))
"""


class Shell:
    """Runs scripts of bash in a folder. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Start the server, and write the commands into `folder`."""
        address = str(folder / "server")
        for command in ("roots-compress", "python"):
            path = folder / command
            path.write_text(CLIENT.format(python=sys.executable, address=address, command=command))
            path.chmod(0o755)
        self._path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        root = str(Path(__file__).parents[2])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.shell", address],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
            cwd=root,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n", "the server of commands did not start"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.terminate()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def run(self, script: str, folder: Path, **variables: str) -> str:
        """Run a script that must succeed, and return what it wrote.

        Raises:
            AssertionError: a command of it failed.
        """
        environment = {**os.environ, "PATH": self._path, **variables}
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            check=False,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, f"exit code {ended.returncode} of\n{script}\n{ended.stdout}"
        return ended.stdout


def serve(address: str) -> None:
    """Fork a command for each connection, until the process is ended."""
    import roots_compress.cli.app
    import roots_compress.pipeline.runner
    import roots_compress.report.text  # noqa: F401
    from roots_compress.advice.candidates import QUANTIZED
    from roots_compress.configs.data import CalibrationConfig
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.configs.recipe.schema import Recipe

    # What pages leave at its default takes most of the time: windows of evaluation, and timings.
    Recipe.model_fields["evaluation"].default = EvaluationConfig(
        windows=2, block_size=32, contexts=(16,), decode_tokens=2, repeats=1, threads=1
    )
    Recipe.model_rebuild(force=True)
    QUANTIZED.update(calibration=CalibrationConfig(windows=4, block_size=32), own_windows=2)
    share_with_children()
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            _answer(connection)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _answer(connection: socket.socket) -> NoReturn:
    """Be the command that a connection asks for, and send its exit code."""
    streams = array.array("i")
    message, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, sent in ancillary:
        streams.frombytes(sent)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    command, folder, copy, *arguments = json.loads(message)
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
    os.chdir(folder)
    end_with(lambda: _be(command, arguments, copy), tell=lambda code: connection.sendall(str(code).encode()))


def _be(command: str, arguments: list[str], copy: str | None) -> None:
    if copy is not None:
        from transformers import AutoConfig

        # The changed copy takes the place of what the server has imported.
        for name in [name for name in sys.modules if name.partition(".")[0] == "roots_compress"]:
            del sys.modules[name]
        AutoConfig.register = lambda *names: None  # type: ignore[method-assign]
        sys.path.insert(0, copy)
    sys.argv = [command, *arguments]
    if command == "roots-compress":
        importlib.import_module("roots_compress.cli.app").main()
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, "")
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
