"""Starts `roots-compress` again and again without importing torch each time: a server that forks itself.

    python -m tests.faults.forker

reads one JSON object a line, `{"arguments": [...], "log": path}`, forks a process group that carries the
command out, and answers with its process id; when that has ended, with its exit code, or minus the signal
that killed it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Serve until standard input ends."""
    # What a command would import in its first seconds, so that kills fall on its work.
    import roots_compress.pipeline
    import roots_compress.report.text  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _carry_out(request["arguments"], Path(request["log"]))
        with suppress(ProcessLookupError):
            os.setpgid(child, child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _carry_out(arguments: Sequence[str], log: Path) -> None:
    """Be the command, as a process group of its own with its output in a file; never returns."""
    from roots_compress.cli.app import main as command

    code = 70
    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        sys.argv = ["roots-compress", *arguments]
        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
