"""The table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.targets import Target


def show_rows(console: Console, rows: Mapping[str, Mapping[str, Any]], baseline: str) -> None:
    """Print every engine's figures; each speed with its ratio to the baseline's."""
    base = rows.get(baseline)
    speeds = [(what, context) for what in ("prefill", "decode") for context in _contexts(rows, what)]
    table = Table(title=f"tokens per second; in brackets the ratio to {baseline}")
    table.add_column("engine")
    for name in (
        "MB",
        "peak MB",
        "perplexity",
        *(f"{what} {context}" for what, context in speeds),
        "same tokens",
    ):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        cells = [
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['peak_rss_bytes'] / 1e6:.0f}",
            f"{row['perplexity']:.3f}",
        ]
        for what, context in speeds:
            value, reference = row[what].get(context), base[what].get(context) if base else None
            ratio = f" ({value / reference:.2f})" if value and reference else ""
            cells.append("-" if value is None else f"{value:.1f}{ratio}")
        cells.append(_agreement(row, base))
        table.add_row(name, *cells)
    console.print(table)


def show_refused(console: Console, refused: Mapping[str, str]) -> None:
    """Print what could not be measured, and why."""
    for name, reason in refused.items():
        console.print(f"not measured: {name}: {reason}", style="yellow", markup=False)


def show_targets(console: Console, targets: Sequence[Target]) -> None:
    """Print what was to be reached, and whether it is."""
    table = Table(title="what the project set itself on SmolLM2-135M")
    for name in ("figure", "against", "reached", "wanted", ""):
        table.add_column(name)
    words = {True: "met", False: "missed", None: "not measured"}
    for target in targets:
        reached = "-" if target.reached is None else f"{target.reached:.3f}"
        bound = ("at least" if target.at_least else "at most") + f" {target.wanted:g}"
        table.add_row(target.figure, target.against, reached, bound, words[target.met])
    console.print(table)


def _contexts(rows: Mapping[str, Mapping[str, Any]], what: str) -> list[int]:
    return sorted({context for row in rows.values() for context in row[what]})


def _agreement(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """Return how many greedy tokens, from the first on, are the baseline's."""
    if base is None:
        return "-"
    pairs = list(zip(row["greedy_tokens"], base["greedy_tokens"], strict=True))
    same = next((place for place, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
    return f"{same}/{len(pairs)}"
