"""Peak memory and time of `data prepare` on synthetic text of several sizes.

    python benchmarks/corpus_memory.py --megabytes 100 --megabytes 1000 --work FOLDER

Documents are words of a vocabulary by Zipf's law, 100 to 600 each; 5 % repeat one of the hundred before,
and 5 % do with a word changed. The peaks are those of the process that reads and writes, and of the largest
of those that examine documents, with Python and its libraries.
A table follows, then the same in JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

VOCABULARY = 50_000
FILE_BYTES = 256 << 20
CHILD = """
import resource, sys
from roots_compress.cli.app import app
try:
    app()
finally:
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        print(resource.getrusage(who).ru_maxrss, file=sys.stderr)
"""


def synthetic(folder: Path, size: int, seed: int) -> int:
    """Write JSON Lines of about `size` bytes; return how many documents they hold."""
    rng, letters = np.random.default_rng(seed), random.Random(seed)
    words = [
        "".join(letters.choices("etaoinshrdlucmfwypvbgk", k=letters.randint(2, 9))) for _ in range(VOCABULARY)
    ]
    chances = 1 / np.arange(1, VOCABULARY + 1)
    edges = np.cumsum(chances / chances.sum())
    recent: deque[list[str]] = deque(maxlen=100)
    written, documents, number = 0, 0, 0
    folder.mkdir(parents=True)
    while written < size:
        with (folder / f"{number:03d}.jsonl").open("w", encoding="utf-8") as file:
            here = 0
            while here < FILE_BYTES and written + here < size:
                draw = letters.random()
                if recent and draw < 0.1:
                    document = list(letters.choice(recent))
                    if draw < 0.05:
                        document[letters.randrange(len(document))] = "changed"
                else:
                    found = np.searchsorted(edges, rng.random(int(rng.integers(100, 600))))
                    document = [words[index] for index in found.tolist()]
                    recent.append(document)
                here += file.write(json.dumps({"text": " ".join(document)}) + "\n")
                documents += 1
        written, number = written + here, number + 1
    return documents


def measure(megabytes: int, work: Path) -> dict[str, float]:
    """Make text of a size, prepare it, and return figures."""
    source, out = work / f"text-{megabytes}", work / f"corpus-{megabytes}"
    if not source.exists():
        synthetic(source, megabytes * 10**6, seed=megabytes)
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, "data", "prepare", str(source), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    seconds = time.monotonic() - started
    sheet = json.loads((out / "datasheet.json").read_text())
    return {
        "megabytes": megabytes,
        "documents": sheet["read"],
        "kept": sheet["documents"],
        "peak_mb": round(int(ended.stderr.split()[-2]) / 1024, 1),
        "examiner_peak_mb": round(int(ended.stderr.split()[-1]) / 1024, 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, action="append", help="sizes of the text; repeatable")
    parser.add_argument("--work", type=Path, required=True, help="a folder for texts and corpora")
    arguments = parser.parse_args()
    rows = []
    print(f"{'text':>8} {'documents':>10} {'kept':>10} {'peak':>9} {'examiner':>9} {'time':>9}")
    for megabytes in arguments.megabytes or [100, 1000]:
        row = measure(megabytes, arguments.work)
        rows.append(row)
        print(
            f"{megabytes:>5} MB {row['documents']:>10,} {row['kept']:>10,} "
            f"{row['peak_mb']:>6} MB {row['examiner_peak_mb']:>6} MB {row['seconds']:>7} s",
            flush=True,
        )
    print(
        json.dumps({"rows": rows, "own_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    )


if __name__ == "__main__":
    main()
