"""Seconds and peak memory of `roots-compress export`, as a multiple of the checkpoint's bytes.

python benchmarks/export_cost.py CHECKPOINT [--portable]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

KIBIBYTE = 1024


def main() -> None:
    """Export once in a process of its own and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--portable", action="store_true")
    options = parser.parse_args()
    weights = sum(path.stat().st_size for path in options.checkpoint.glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from roots_compress.cli.app import main; main()", "export"]
        command += [str(options.checkpoint), "--out", f"{folder}/graph"]
        start = time.perf_counter()
        subprocess.run(command + ["--portable"] * options.portable, check=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIBIBYTE
    Console().print(
        f"{seconds:.1f} s, peak memory {peak / 1e6:.0f} MB, {peak / weights:.2f} x the checkpoint's"
        f" {weights / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
