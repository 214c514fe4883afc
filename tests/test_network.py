"""No command speaks to the network or leaves anything in the user's home, and neither do its libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from tests.tiny import tiny_checkpoint

COMMAND = "import sys; from roots_compress.cli.app import main; main()"
# Whatever would keep a library from the network, or from its habits, must not be needed.
SETTINGS = ("HF_HUB_OFFLINE", "ORT_DISABLE_TELEMETRY", "CI", "HF_HUB_DISABLE_TELEMETRY")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a graph and an empty home."""
    for name in ("graph", "home"):
        (tmp_path / name).mkdir()
    export_checkpoint(tiny_checkpoint(), tmp_path / "graph", ExportConfig())
    return tmp_path


COMMANDS = [
    "generate graph --prompt x --max-new-tokens 2 --threads 1",
    "bench graph --context 16 --repeats 1 --decode-tokens 2 --threads 1",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_socket_is_opened_and_the_home_stays_empty(command: str, place: Path) -> None:
    """ONNX Runtime, left to itself, writes an identifier there, and reports over the network."""
    tracer = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,connect", "-o", "calls"]
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        environment[name] = str(place / "home")
    ended = subprocess.run(
        [*(tracer if shutil.which("strace") else []), sys.executable, "-c", COMMAND, *command.split()],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert not list((place / "home").rglob("*"))
    if (place / "calls").exists():
        assert "AF_INET" not in (place / "calls").read_text()
