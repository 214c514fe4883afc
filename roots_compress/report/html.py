"""A run as one self-contained HTML page: no scripts, no fonts, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from roots_compress.errors import printable
from roots_compress.report.rows import Row, quality_of, rows_of, speeds
from roots_compress.report.scatter import Scatter, scatter
from roots_compress.report.text import (
    caption,
    cells,
    headings,
    label,
    megabytes,
    positions,
    search_caption,
    search_cells,
    search_headings,
)
from roots_compress.results import CandidateResult, RunMetrics, SearchResult
from roots_compress.stages.base import Exchange
from roots_compress.stages.registry import stage_of_kind
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_named

ENVIRONMENT = Environment(
    loader=PackageLoader("roots_compress.report", "."),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Bar:
    """One bar of a chart; `percent` is its length against the longest."""

    label: str
    text: str
    percent: float


@dataclass(frozen=True)
class Chart:
    """A bar for every stage."""

    title: str
    bars: tuple[Bar, ...]


def html(run: RunMetrics) -> str:
    """Return the page. Everything that comes from files or names is escaped."""
    rows, task = rows_of(run), task_named(run.task)
    page = ENVIRONMENT.get_template("report.html.j2").render(
        run=run,
        headings=headings(task),
        rows=[(row, cells(row), label(row.stage), _pretty(row.stage.notes)) for row in rows],
        charts=charts(task, rows),
        caption=caption(run),
        protocol=_pretty(asdict(run.protocol)),
        machine=_pretty(run.machine),
        metric=task.metric.heading,
        positions=positions(run),
        exchanges=[(label(row.stage), exchanges) for row in rows if (exchanges := _exchanges(row))],
        search=_search(task, run.search) if run.search else None,
    )
    return printable(page)


def _exchanges(row: Row) -> list[Exchange]:
    stage = stage_of_kind(row.stage.kind)
    return [] if stage is None else stage.exchanges(row.stage.notes)


@dataclass(frozen=True)
class Found:
    """What the page shows of a search."""

    headings: tuple[str, ...]
    rows: tuple[tuple[CandidateResult, tuple[str, ...]], ...]
    caption: str
    scatter: Scatter


def _search(task: Task[Any], search: SearchResult) -> Found:
    rows = tuple((candidate, search_cells(task, candidate, search)) for candidate in search.candidates)
    return Found(search_headings(task), rows, search_caption(search), scatter(task, search))


def charts(task: Task[Any], rows: tuple[Row, ...]) -> tuple[Chart, ...]:
    """Return what a reader looks at first: size, speed at the longest context, and quality."""
    quality = list(quality_of(task, *(row.stage for row in rows)))
    speed = [_speed(row) for row in rows]
    sizes = [row.stage.metrics.bytes for row in rows]
    return (
        _chart("Size, MB", rows, sizes, [megabytes(size) for size in sizes]),
        _chart(task.workload.title, rows, speed, [f"{value:.0f}" for value in speed]),
        _chart(task.metric.heading.capitalize(), rows, quality, list(map(task.metric.shown, quality))),
    )


def _speed(row: Row) -> float:
    measured = speeds(row.stage, row.task.workload)
    return measured[-1].median if measured else 0.0


def _chart(title: str, rows: tuple[Row, ...], values: Sequence[float], texts: Sequence[str]) -> Chart:
    longest = max(values, default=0.0) or 1.0
    return Chart(
        title,
        tuple(
            Bar(label(row.stage), text, max(0.0, 100 * value / longest))
            for row, value, text in zip(rows, values, texts, strict=True)
        ),
    )


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
