"""Fuzzes the readers of files that others wrote, by atheris (`pip install --group fuzz`).

    python -m tests.fuzz --seed 1 --seconds 60

prints one JSON line for each target, and leaves with exit code 1 where there was a finding. The input that
made it lies in `fuzz-findings/`; once the reader is mended, it is moved to `tests/fuzz/findings/`, which the
test suite reads. What was found so far stands in docs/how/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bad_inputs.materials import make_materials
from tests.fuzz.targets import FINDINGS, TARGETS, Target

ROOT = Path(__file__).parents[2]
HANG_SECONDS = 60
"""Of the clock, after which libFuzzer gives an input up; processor time is what `targets.py` measures."""
MOST_MEGABYTES = 1024
WORDS = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]{2,31}")
MOST_WORDS = 500


def main() -> int:
    """Fuzz the targets in turn; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", choices=TARGETS, help="one target alone")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where findings go")
    options = parser.parse_args()
    found = 0
    with tempfile.TemporaryDirectory() as name:
        good = make_materials(Path(name, "good"))
        for target in [TARGETS[options.only]] if options.only else TARGETS.values():
            folder = Path(name, target.name)
            folder.mkdir()
            found += _fuzz(target, good, folder, options)
    return 1 if found else 0


def _fuzz(target: Target, good: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Fuzz one target in a process of its own; return whether it ended with a finding."""
    corpus = folder / "corpus"
    corpus.mkdir()
    seeds = [*target.seeds(good), *(path.read_bytes() for path in sorted((FINDINGS / target.name).glob("*")))]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    findings = options.findings.absolute() / target.name
    findings.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tests.fuzz.worker", target.name, str(good), str(folder),
        f"-seed={options.seed}", f"-max_total_time={options.seconds}", f"-max_len={target.longest}",
        f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}", f"-artifact_prefix={findings}/",
        f"-dict={_dictionary(seeds, folder)}", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    started = time.monotonic()
    with (folder / "log").open("w+b") as log:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ}, stdout=log, stderr=log, check=False)
        log.seek(0)
        said = log.read().decode("utf-8", errors="replace")
    line = {
        "target": target.name,
        "seed": options.seed,
        "seconds": round(time.monotonic() - started, 1),
        "inputs": _last_number(r"stat::number_of_executed_units:\s*(\d+)", said),
        "edges": _last_number(r"cov: (\d+)", said),
        "corpus": len(list(corpus.iterdir())),
        "peak MB": _last_number(r"stat::peak_rss_mb:\s*(\d+)", said),
        "findings": int(done.returncode != 0),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    if done.returncode:
        sys.stdout.write(said[-4000:] + "\n")
    sys.stdout.flush()
    return done.returncode != 0


def _last_number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def _dictionary(seeds: list[bytes], folder: Path) -> Path:
    """Write the words of the seeds as libFuzzer's dictionary, and return its path."""
    words = sorted({word for seed in seeds for word in WORDS.findall(seed)})[:MOST_WORDS]
    path = folder / "dictionary"
    path.write_text("".join(f'"{word.decode()}"\n' for word in words))
    return path


if __name__ == "__main__":
    sys.exit(main())
