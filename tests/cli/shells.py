"""Lines of shell in which the command is run for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $ROOTS is the command; what it writes is read as UTF-8."""
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("$ROOTS", f"{sys.executable} -m roots_compress")],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        check=False,
    )
    # Not by subprocess, which would turn each CR LF into LF.
    written, told = (stream.decode("utf-8", "replace") for stream in (ended.stdout, ended.stderr))
    return subprocess.CompletedProcess(ended.args, ended.returncode, written, told)
