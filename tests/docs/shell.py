"""A real shell for the blocks of a page, in which `roots-compress` and `python` start at once.

Both are small programs on PATH. They hand their arguments, folder and streams to a server that has imported
the package, and it forks a process that is the command.
"""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fork_server import Server, wait_for

CLIENT = """\
#!{python} -ISs
import array, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
arguments = [{command!r}, os.environ.get("ROOTS_COPY", ""), *sys.argv[1:]]
request = dict(arguments=arguments, folder=os.getcwd(), group=os.getpgid(0), environment=None)
streams = array.array("i", [0, 1, 2])
server.sendmsg([json.dumps(request).encode() + b"\\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
answers = server.makefile()
process, code = answers.readline(), answers.readline()
sys.exit(int(code or 1))
"""


class Shell:
    """Runs scripts of bash in a folder. Use as a context manager."""

    def __init__(self, folder: Path, commands: str) -> None:
        """Fork the server from that of `commands`, an address, and write its commands into `folder`."""
        self._server = Server(__name__, parent=commands)
        wait_for(self._server.address)
        for command in ("roots-compress", "python"):
            path = folder / command
            address = self._server.address
            path.write_text(CLIENT.format(python=sys.executable, address=address, command=command))
            path.chmod(0o755)
        self._path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

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


def warm_up() -> None:
    """Shorten what pages leave at its default."""
    from roots_compress.advice import candidates
    from roots_compress.configs.data import CalibrationConfig
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.configs.quantize import QuantizeConfig
    from roots_compress.configs.recipe.schema import Recipe

    # What pages leave at its default takes most of the time: windows of evaluation, and timings.
    Recipe.model_fields["evaluation"].default = EvaluationConfig(
        windows=2, block_size=32, contexts=(16,), decode_tokens=2, repeats=1, threads=1
    )
    Recipe.model_rebuild(force=True)
    little: dict[str, Any] = {"calibration": CalibrationConfig(windows=4, block_size=32), "own_windows": 2}
    vars(candidates)["QuantizeConfig"] = partial(QuantizeConfig, **little)


def work(command: str, copy: str, *arguments: str) -> None:
    """Be a command, of the changed copy of the package in the folder `copy` where there is one."""
    if copy:
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
        sys.argv = [*arguments[1:]]
        sys.path.insert(0, "")
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*arguments]
        runpy.run_path(arguments[0], run_name="__main__")
