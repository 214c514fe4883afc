"""Compares the forecasts of `plan` with finished runs: bytes, seconds and memory of stages and of the whole.

    python -m benchmarks.forecast RUN...

Each finished run's recipe is planned anew, in a temporary folder, as `roots-compress plan` would. The exit
status is 1 where bytes are off by more than 2%, memory by more than 30%, or times by more than a factor of
1.5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from roots_compress.configs.recipe.growth import read_resolved
from roots_compress.errors import InputError
from roots_compress.events import Events
from roots_compress.pipeline.forecast.forecast import forecast
from roots_compress.pipeline.preflight import prepare
from roots_compress.run.stages import read_metrics

BYTES, TIME, MEMORY = 1.02, 1.5, 1.3
"""The most that a forecast may be off, as factors."""
LEAST_SECONDS = 5.0
"""A shorter row is left out of the judgement of times."""


class Table:
    """A table that compares forecasts with measurements.

    `kept` is False once a forecast is out of bounds.
    """

    def __init__(self) -> None:
        self.kept = True
        print("| row | graph MB | work s | checks s | row s | memory MB |\n|---|---|---|---|---|---|")

    def line(self, label: str, *cells: str) -> None:
        """Print a row."""
        print(f"| {' | '.join((label, *cells))} |", flush=True)

    def cell(self, foreseen: float, found: float | None, most: float | None = None) -> str:
        """Return `forecast / measured = ratio`, marked where the ratio is out of bounds."""
        if not found or not foreseen:
            return f"{foreseen:.4g}" if foreseen else ""
        ratio = foreseen / found
        missed = most is not None and not 1 / most <= ratio <= most
        self.kept &= not missed
        return f"{foreseen:.4g} / {found:.4g} = {ratio:.2f}{' !' if missed else ''}"


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    try:
        kept = [_kept(run) for run in parser.parse_args().runs]
    except InputError as error:
        sys.exit(str(error))
    sys.exit(0 if all(kept) else 1)


def _kept(run: Path) -> bool:
    metrics, recipe = read_metrics(run), read_resolved(run)
    if recipe is None:
        sys.exit(f"{run} holds no recipe: name a finished run")
    with TemporaryDirectory() as name:
        folder = Path(name) / "run"
        expected = forecast(prepare(recipe, folder), folder, Events())
    print(f"\n{run}: measured in {expected.probe_seconds:.0f} s\n")
    table = Table()
    for row, found in zip(expected.stages, metrics.stages, strict=True):
        whole = None if found.check_seconds is None else found.whole_seconds
        judged = TIME if (whole or found.seconds) >= LEAST_SECONDS else None
        memory = None if found.making_rss_bytes is None else found.making_rss_bytes / 1e6
        table.line(
            row.name,
            table.cell(row.graph_bytes / 1e6, found.metrics.bytes / 1e6, BYTES),
            table.cell(row.work_seconds, found.seconds, judged if whole is None else None),
            table.cell(row.check_seconds, found.check_seconds),
            table.cell(row.seconds, whole, judged),
            table.cell(row.memory_bytes / 1e6, memory, MEMORY),
        )
    if metrics.timing_seconds is not None and expected.seconds is not None:
        spent = sum(row.whole_seconds for row in metrics.stages) + metrics.timing_seconds
        table.line("timing", "", "", "", table.cell(expected.timing_seconds, metrics.timing_seconds), "")
        table.line("the run", "", "", "", table.cell(expected.seconds, spent, TIME), "")
    return table.kept


if __name__ == "__main__":
    main()
