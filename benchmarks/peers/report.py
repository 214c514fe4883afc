"""The figures for people: tables of at most 80 columns, and the same as Markdown.

A terminal's table has one line a row, so that a run over ssh or in a log can be read and searched: what does
not fit stands in a further table. Markdown has all of a row in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peers.targets import Target

WIDTH = 80
"""Columns of the terminal that every table fits."""
NAME_WIDTH = 26
SPEEDS_ABREAST = 5
"""Speeds that fit next to an engine's name."""
DEFAULTS = "defaults"

Rows = Mapping[str, Mapping[str, Any]]
Speed = tuple[str, int]
"""`prefill` or `decode`, and the context."""


def show_rows(console: Console, rows: Rows, baseline: str) -> None:
    """Print every engine's figures: quality and size, speeds, their ratios to the baseline's, settings."""
    speeds = _speeds(rows)
    base = rows.get(baseline)
    _show(
        console,
        "size, memory, perplexity and its ratio, and greedy tokens equal, to " + baseline,
        ("MB", "peak MB", "perplexity", "ratio", "same tokens"),
        {name: _quality(row, base) for name, row in rows.items()},
    )
    for few in _abreast(speeds):
        headings = [f"{what}\n{context:,}" for what, context in few]
        rates = {name: [_rate(row, speed) for speed in few] for name, row in rows.items()}
        ratios = {name: [_ratio(row, base, speed) for speed in few] for name, row in rows.items()}
        _show(console, "tokens per second", headings, rates)
        if base is not None:
            _show(console, f"tokens per second, as a ratio to {baseline}", headings, ratios)
    show_settings(console, rows)


def show_settings(console: Console, rows: Rows) -> None:
    """Print each engine's session options, those of the same options together."""
    console.print("session options that were set", style="italic", justify="center", width=WIDTH)
    by_settings: dict[str, list[str]] = {}
    for name, row in rows.items():
        by_settings.setdefault(settings_text(row), []).append(name)
    for settings, names in by_settings.items():
        console.print(f" {', '.join(names)}:", markup=False, highlight=False, width=WIDTH)
        console.print(f"   {settings}", markup=False, highlight=False, width=WIDTH)
    console.print()


def show_refused(console: Console, refused: Mapping[str, str]) -> None:
    """Print what could not be measured, and why."""
    for name, reason in refused.items():
        console.print(f"not measured: {name}: {reason}", style="yellow", markup=False, width=WIDTH)


def show_targets(console: Console, targets: Sequence[Target]) -> None:
    """Print what was to be reached, and whether it is."""
    table = _table("what the project set itself on SmolLM2-135M")
    for name in ("figure", "against", "reached", "wanted", ""):
        table.add_column(name)
    for target in targets:
        table.add_row(target.figure, target.against, *_judgement(target))
    console.print(table, width=WIDTH)


def markdown(rows: Rows, baseline: str, targets: Sequence[Target]) -> str:
    """Return the rows and the targets as two Markdown tables."""
    base, speeds = rows.get(baseline), _speeds(rows)
    head = ["engine", "MB", "peak MB", "perplexity", "ratio", "same tokens"]
    head += [f"{what} at {context:,}" for what, context in speeds] + ["session options"]
    lines = []
    for name, row in rows.items():
        cells = []
        for speed in speeds:
            rate, ratio = _rate(row, speed), _ratio(row, base, speed)
            cells.append(rate if ratio == "-" else f"{rate} ({ratio})")
        lines.append([name, *_quality(row, base), *cells, settings_text(row)])
    judged = [[target.figure, target.against, *_judgement(target)] for target in targets]
    return "\n".join(
        (
            *_markdown_table(head, lines),
            "",
            *_markdown_table(("figure", "against", "reached", "wanted", ""), judged),
        )
    )


def settings_text(row: Mapping[str, Any]) -> str:
    """Return what a row's engine was told beyond its defaults, such as `session.x64quantprecision=1`."""
    settings: Mapping[str, str] = row["session_options"]
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or DEFAULTS


def _show(console: Console, title: str, headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    table = _table(title)
    table.add_column("engine", max_width=NAME_WIDTH, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table, width=WIDTH)


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="center")


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _markdown_row(head)
    yield "|---" * len(head) + "|"
    for row in rows:
        yield _markdown_row(row)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _speeds(rows: Rows) -> list[Speed]:
    return [(what, context) for what in ("prefill", "decode") for context in _contexts(rows, what)]


def _contexts(rows: Rows, what: str) -> list[int]:
    return sorted({context for row in rows.values() for context in row[what]})


def _abreast(speeds: Sequence[Speed]) -> Iterator[Sequence[Speed]]:
    for first in range(0, len(speeds), SPEEDS_ABREAST):
        yield speeds[first : first + SPEEDS_ABREAST]


def _quality(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    return [
        f"{row['bytes'] / 1e6:.1f}",
        f"{row['peak_rss_bytes'] / 1e6:.0f}",
        f"{row['perplexity']:.3f}",
        "-" if base is None else f"{row['perplexity'] / base['perplexity']:.4f}",
        _agreement(row, base),
    ]


def _rate(row: Mapping[str, Any], speed: Speed) -> str:
    what, context = speed
    value = row[what].get(context)
    return "-" if value is None else f"{value:.1f}"


def _ratio(row: Mapping[str, Any], base: Mapping[str, Any] | None, speed: Speed) -> str:
    what, context = speed
    value, reference = row[what].get(context), base[what].get(context) if base else None
    return f"{value / reference:.2f}" if value and reference else "-"


def _judgement(target: Target) -> tuple[str, str, str]:
    words = {True: "met", False: "missed", None: "not measured"}
    reached = "-" if target.reached is None else f"{target.reached:.3f}"
    bound = ("at least" if target.at_least else "at most") + f" {target.wanted:g}"
    return reached, bound, words[target.met]


def _agreement(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """Return how many greedy tokens, from the first on, are the baseline's."""
    if base is None:
        return "-"
    pairs = list(zip(row["greedy_tokens"], base["greedy_tokens"], strict=True))
    same = next((place for place, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
    return f"{same}/{len(pairs)}"
