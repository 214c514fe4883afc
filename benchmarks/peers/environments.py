"""A virtual environment for each peer, so that none of them decides another's versions.

    python -m benchmarks.peers.environments optimum-onnx FOLDER

makes one of them in a folder, unless it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "environment.json"
X86 = platform.machine() in ("x86_64", "AMD64")
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


class PeerError(Exception):
    """A peer cannot be prepared or measured; the others go on without it."""


@dataclass(frozen=True)
class Environment:
    """What is installed, in versions that are known to work together."""

    name: str
    requirements: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Set while installing."""


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("torch", ("torch==2.13.0", "transformers==5.23.0")),
        Environment(
            "optimum-onnx",
            (
                "optimum-onnx==0.1.0", "optimum==2.1.0", "transformers==4.57.6", "torch==2.13.0",
                "onnx==1.23.2", "onnxruntime==1.31.1",
            ),
        ),
        Environment(
            "onnxruntime-genai",
            (
                "onnxruntime-genai==0.18.0", "onnxruntime==1.31.1", "onnx==1.23.2", "onnx-ir==1.1.0",
                "transformers==5.23.0", "torch==2.13.0", "sentencepiece",
            ),
        ),
        # Built from source for this machine's own instructions, which takes ten minutes or more; without AMX,
        # for its kernels in this version crash on a prompt of a quantized model (8-bit tested).
        Environment(
            "llama-cpp-python",
            ("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors"),
            {"CMAKE_ARGS": "-DGGML_NATIVE=ON", "CFLAGS": NO_AMX, "CXXFLAGS": NO_AMX} if X86 else {},
        ),
    )
}  # fmt: skip


def prepare_environment(environment: Environment, folder: Path, log: Path) -> Path:
    """Return the interpreter of an environment, which is made unless it stands there as it should.

    Raises:
        PeerError: it cannot be installed.
    """
    home = folder / environment.name
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = {"requirements": list(environment.requirements), "variables": dict(environment.variables)}
    marker = home / MARKER
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    if environment.variables:
        command.append("--no-cache-dir")  # A wheel kept from another build would be taken as it is.
    command += environment.requirements
    run_logged(command, log, variables=environment.variables)
    marker.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return python


def installed_versions(python: Path) -> dict[str, str]:
    """Return the version of every package of an environment."""
    command = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=peer_variables({}))
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


def peer_variables(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables a peer's process gets: none that lead it to other packages or to the network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **extra}


def run_logged(command: list[str], log: Path, *, variables: Mapping[str, str]) -> None:
    """Run a command that writes to a log.

    Raises:
        PeerError: it failed; the message is the last line it wrote.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=peer_variables(variables),
        ).returncode
    if code:
        raise PeerError(f"{last_line(log) or f'exit code {code}'} (see {log})")


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def main() -> int:
    """Make an environment; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.environments")
    parser.add_argument("name", choices=list(ENVIRONMENTS))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        prepare_environment(
            ENVIRONMENTS[given.name], given.folder.resolve(), given.folder / f"{given.name}.log"
        )
    except PeerError as error:
        print(f"{given.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
