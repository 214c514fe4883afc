"""Starts `roots-compress` again and again without importing torch each time: a server that forks itself.

    python -m tests.faults.forker

reads one JSON object a line, `{"arguments": [...], "log": path, "code": null}`, forks a process group that
carries the command out, or the Python code with these arguments, and answers with its process id; when that
has ended, with its exit code, or minus the signal that killed it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tests.forked import be, be_the_command, share_with_children


def main() -> None:
    """Serve until standard input ends."""
    # What a command would import in its first seconds, so that kills fall on its work.
    import roots_compress.cli.app
    import roots_compress.pipeline.runner
    import roots_compress.report.text  # noqa: F401

    os.fsync = lambda fd: None  # A dead process loses no write that the system has taken.
    share_with_children()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _be(request["arguments"], Path(request["log"]), request["code"])
        with suppress(ProcessLookupError):
            os.setpgid(child, child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _be(arguments: list[str], log: Path, code: str | None) -> NoReturn:
    if code is None:
        be_the_command(arguments, log)
    sys.argv = ["-c", *arguments]
    be(lambda: exec(code, {"__name__": "__main__"}), log)


if __name__ == "__main__":
    main()
