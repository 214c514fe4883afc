"""A run as Markdown for a pull request or the summary of a CI job: the decision first, details folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from roots_compress.errors import printable
from roots_compress.report.rows import Row, rows_of
from roots_compress.report.text import (
    GATE_HEADINGS,
    caption,
    cells,
    gain_heading,
    gate_cells,
    headings,
    label,
    positions,
    search_caption,
    search_cells,
    search_headings,
)
from roots_compress.report.verdict import verdict
from roots_compress.results import RunMetrics
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_named


def markdown(run: RunMetrics) -> str:
    """Return the verdict, a small table, the gates, and below a fold every figure and how it was made."""
    task, rows = task_named(run.task), rows_of(run)
    kept = [heading for heading in headings(task) if heading in _small(task)]
    return "\n".join(
        [
            f"# {plain(run.name)}",
            "",
            f"**{plain(verdict(run).sentence)}**",
            "",
            *markdown_table(kept, (_chosen(task, row) for row in rows)),
            "",
            *_gates(run),
            *folded("Every figure, and how it was made", _details(run)),
        ]
    )


def _small(task: Task[Any]) -> set[str]:
    """Return the headings of the columns that decide."""
    compared = headings(task)[headings(task).index(task.metric.heading) + 1]
    return {"stage", "MB", "smaller", task.metric.heading, compared, gain_heading(task)}


def _chosen(task: Task[Any], row: Row) -> list[str]:
    small = _small(task)
    return [cell for heading, cell in zip(headings(task), cells(row), strict=True) if heading in small]


def _gates(run: RunMetrics) -> Iterator[str]:
    if run.gates:
        yield from markdown_table(GATE_HEADINGS, map(gate_cells, run.gates))
        yield ""


def _details(run: RunMetrics) -> Iterator[str]:
    task, rows, search = task_named(run.task), rows_of(run), run.search
    yield from markdown_table(headings(task), map(cells, rows))
    yield from ("", plain(caption(run)), "")
    yield from (f"- **{plain(label(row.stage))}**: {plain(row.verdict)}" for row in rows)
    titles, by_position = positions(run)
    if by_position:
        yield from ("", f"## {task.metric.heading.capitalize()} by position", "")
        yield from markdown_table(titles, by_position)
    if search:
        found = (search_cells(task, candidate, search) for candidate in search.candidates)
        yield from ("", "## Search", "", *markdown_table(search_headings(task), found))
        yield from ("", plain(search_caption(search)))
    machine = [f"{key.replace('_', ' ')} {run.machine[key]}" for key in MACHINE if key in run.machine]
    if machine:
        yield from ("", plain(f"Machine: {', '.join(machine)}."))


MACHINE = ("cpu", "instruction_set", "threads")


def folded(summary: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield lines that a reader unfolds by a click; GitHub and GitLab show the element."""
    yield from (f"<details><summary>{plain(summary)}</summary>", "", *lines, "", "</details>", "")


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table, everything in it escaped."""
    yield "| " + " | ".join(map(plain, titles)) + " |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(map(plain, row)) + " |"


def plain(text: str) -> str:
    """Escape what Markdown or an HTML renderer would read as markup."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_~[]|":
        escaped = escaped.replace(mark, "\\" + mark)
    return " ".join(escaped.split())
