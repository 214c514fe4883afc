"""A run as one self-contained HTML page: no request leaves it, and it is complete without its script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roots_compress.report import compare_text
from roots_compress.report.compare import Comparison
from roots_compress.report.page import pictures, sections
from roots_compress.report.page.render import render
from roots_compress.report.rows import rows_of
from roots_compress.report.text import (
    GATE_HEADINGS,
    cells,
    decision,
    gate_cells,
    headings,
    positions,
    search_caption,
    search_cells,
    search_headings,
)
from roots_compress.report.verdict import numbered, verdict
from roots_compress.results import CandidateResult, RunMetrics, SearchResult
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_named

MARKS = {"ship": "ship", "do not ship": "hold", "undecided": "open"}
"""Classes of the box around a verdict."""


def html(run: RunMetrics, *, recipe: str | None = None) -> str:
    """Return the page. Everything that comes from files or names is escaped.

    Args:
        run: its figures, at least one row.
        recipe: the text of the recipe that makes the run, where it is known.
    """
    rows, task, decided = rows_of(run), task_named(run.task), verdict(run)
    groups = pictures.groups(run)
    shown: dict[str, Any] = {
        "quality": sections.quality_table(task, run),
        "agreement": sections.agreement(task, run),
        "positions": _positions(run),
        "errors": pictures.errors(run),
        "samples": sections.samples(run),
        "exchanges": sections.exchanges(run),
    }
    return render(
        "report.html.j2",
        **shown,
        quality_shown=any(value[1] if isinstance(value, tuple) else value for value in shown.values()),
        run=run,
        decided=decided,
        mark=MARKS[decided.decision],
        tiles=sections.tiles(task, run),
        headings=headings(task),
        rows=[(numbered(row.stage), cells(row)[1:]) for row in rows],
        verdicts=[
            (numbered(row.stage), row.verdict, row.paid, decision(row.stage)) for row in rows if row.verdict
        ],
        caption=task.caption(run.protocol),
        metric=task.metric.heading,
        continues=task.writes_unasked,
        trade_offs=pictures.trade_offs(task, run),
        steps=pictures.taken_off(run),
        groups=groups,
        group_headings=[*(bar[0] for bar in groups.bars), "share of the last"] if groups else [],
        latency=pictures.latency(task, run),
        curves=pictures.curves(run),
        gate_headings=(*GATE_HEADINGS[:-1], "kept"),
        gates=[(gate_cells(gate), gate.passed) for gate in run.gates],
        search=_search(task, run.search) if run.search else None,
        protocol=sections.protocol_facts(task, run),
        machine=sections.facts(run.machine),
        versions=sections.versions(run),
        recipe=recipe,
        notes=[(numbered(row.stage), row.stage.onnx, sections.pretty(row.stage.notes)) for row in rows],
    )


def _positions(run: RunMetrics) -> sections.Table:
    headings, rows = positions(run)
    return list(headings[1:]), [
        (numbered(stage), list(row[1:])) for stage, row in zip(run.stages, rows, strict=False)
    ]


def comparison_html(compared: Comparison, runs: Sequence[RunMetrics]) -> str:
    """Return the page of runs side by side.

    Args:
        compared: what differs, as `comparison` returns it.
        runs: the figures that it was made of.
    """
    task = task_named(compared.task)
    return render(
        "compare.html.j2",
        compared=compared,
        verdicts=[(name, verdict(run)) for name, run in zip(compared.runs, runs, strict=True)],
        marks=MARKS,
        chart=pictures.compared_sizes(task, compared, runs),
        differences=_named(*compare_text.difference_table(compared)),
        settings=_named(*compare_text.setting_table(compared)),
        stages=_named(compare_text.stage_headings(compared), list(compare_text.stage_rows(compared))),
    )


def _named(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> sections.Table:
    """Return a table whose rows' first cells are their names."""
    return list(headings), [(row[0], list(row[1:])) for row in rows]


@dataclass(frozen=True)
class Found:
    """What the page shows of a search."""

    headings: tuple[str, ...]
    rows: tuple[tuple[CandidateResult, tuple[str, ...]], ...]
    caption: str


def _search(task: Task[Any], search: SearchResult) -> Found:
    rows = tuple((candidate, search_cells(task, candidate, search)) for candidate in search.candidates)
    return Found(search_headings(task), rows, search_caption(search))
