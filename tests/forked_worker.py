"""Test processes of pytest-xdist that a server forks, which has imported all libraries and the package.

    python -m tests.forked_worker ADDRESS ... CODE

carries out the code in a process of the server, with this one's streams, and ends as it does. The server has
changed nothing of what it imported: the tests do that themselves.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.fork_server import Process


def warm_up() -> None:
    """Import what tests do."""
    from tests.faults.commands import import_package

    import_package()


def work(code: str) -> None:
    """Be the test process."""
    sys.argv = ["-c"]
    exec(code, {"__name__": "__main__"})


def main() -> int:
    """Ask the server for the process, and wait for its end."""
    _, address, *_, code = sys.argv
    here, group = Path.cwd(), os.getpgid(0)
    process = Process(address, [code], (0, 1, 2), folder=here, group=group, environment=os.environ)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
