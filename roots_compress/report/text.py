"""A run as a table for the terminal, and the cells and sentences that other forms show too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from roots_compress.report.rows import Row, rows_of
from roots_compress.report.spread import speeds
from roots_compress.report.table import Table, table_of
from roots_compress.results import (
    CandidateResult,
    GateResult,
    RunMetrics,
    SearchResult,
    StageResult,
    candidate_label,
)
from roots_compress.rounding import bounded
from roots_compress.stages.registry import stage_of_kind
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Workload
from roots_compress.tasks.figures.perplexity import STARTS
from roots_compress.tasks.registry import task_named


def headings(task: Task[Any]) -> tuple[str, ...]:
    """Return the headings of a run's table."""
    first, *others = (metric.heading for metric in task.metrics)
    return (
        *("stage", "parameters", "MB", "smaller", first),
        "ratio" if task.metric.relative else "change",
        *others,
        *(workload.heading for workload in task.workloads),
        *(gain_heading(task), "peak MB", "seconds"),
    )


def gain_heading(task: Task[Any]) -> str:
    """Return the heading of the gain in speed."""
    return f"{task.workload.words} gain"


def cells(row: Row) -> tuple[str, ...]:
    """Return one row's cells, in the order of `headings`."""
    metrics, task = row.stage.metrics, row.task
    first, *others = (metric.shown_of(metrics.quality) for metric in task.metrics)
    return (
        label(row.stage),
        f"{metrics.parameters:,}",
        megabytes(metrics.bytes),
        f"{row.times_smaller:.2f}x",
        *(first, row.compared, *others),
        *(speed_cell(row.stage, workload) for workload in task.workloads),
        f"{row.speedup:.2f}x",
        f"{metrics.peak_rss_bytes / 1e6:.0f}",
        f"{row.stage.seconds:.1f}",
    )


def megabytes(count: float) -> str:
    """Return bytes in megabytes: `24.0`, or `0.109` where there are few."""
    return f"{count / 1e6:.1f}" if count >= 1e6 else f"{count / 1e6:.3f}"


def label(stage: StageResult) -> str:
    """Return the stage's name, with its kind where the two differ."""
    return stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"


def speed_cell(stage: StageResult, workload: Workload) -> str:
    """Return the medians at each length, shortest first: `592 / 711`."""
    return " / ".join(f"{speed.median:,.0f}" for speed in speeds(stage, workload))


def table(run: RunMetrics) -> Table:
    """Return the run as a table."""
    return table_of(run.name, headings(task_named(run.task)), map(cells, rows_of(run)), caption(run))


def tables(run: RunMetrics) -> tuple[Table, ...]:
    """Return the run as a table and, where it was searched for, the candidates by rising size as another."""
    if run.search is None:
        return (table(run),)
    task, search = task_named(run.task), run.search
    rows = (search_cells(task, candidate, search) for candidate in search.candidates)
    return table(run), table_of("Search", search_headings(task), rows, search_caption(search))


def search_headings(task: Task[Any]) -> tuple[str, ...]:
    """Return the headings of a search's table."""
    metric = task.metric
    costs = f"{task.workload.words} ms", f"{metric.heading} {'ratio' if metric.relative else 'change'}"
    return ("candidate", "MB", *costs, "Pareto", "budgets", "")


def candidate_line(task: Task[Any], size: float, milliseconds: float, compared: float) -> str:
    """Return a candidate's bytes, milliseconds and quality in a row, as people read them."""
    time, metric = f"{milliseconds:.3g} ms a {task.workload.unit}", task.metric
    shown = metric.shown_compared(compared)
    quality = f"{shown} the {metric.heading}" if metric.relative else f"{metric.heading} {shown}"
    return f"{size / 1e6:.2f} MB, {time}, {quality}"


def search_cells(task: Task[Any], candidate: CandidateResult, search: SearchResult) -> tuple[str, ...]:
    """Return one candidate's cells, in the order of `search_headings`."""
    marks = {"BEST": candidate.stages == search.best, "control": candidate.role == "control"}
    return (
        candidate_label(candidate.stages),
        f"{candidate.bytes / 1e6:.2f}",
        f"{candidate.figures[task.workload.time_name]:.3g}",
        task.metric.shown_compared(candidate.figures[task.metric.compared_name]),
        "front" if candidate.on_front else "",
        "kept" if candidate.keeps_budgets else "missed",
        ", ".join(mark for mark, holds in marks.items() if holds),
    )


def search_caption(search: SearchResult) -> str:
    """Say how the candidates were compared, and which are missing."""
    said = (
        "Front: no other candidate is at least as good in all three figures. Each was timed in turns with "
        "the baseline, at the greatest length; medians."
    )
    if not any(candidate.keeps_budgets for candidate in search.candidates):
        said += " NO CANDIDATE KEEPS ALL BUDGETS: the best is the one that comes nearest."
    if search.untried:
        said += f" {search.untried} candidates were not tried within {search.max_minutes:g} minutes."
    return said + "".join(f" {name} failed: {why}." for name, why in search.failed.items())


def caption(run: RunMetrics) -> str:
    """Say how the figures were made, and what stages decided."""
    said = task_named(run.task).caption(run.protocol)
    decided = (f" {label(row)}: {found}" for row in run.stages if (found := decision(row)))
    return "".join((said, *decided))


def decision(row: StageResult) -> str:
    """Say what a stage decided, in a sentence; nothing where it has none to tell."""
    stage = stage_of_kind(row.kind)
    said = None if stage is None else stage.caption(row.notes)
    return f"{said}." if said else ""


def positions(run: RunMetrics) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and rows of a table of the first metric by position in windows; no rows if unknown."""
    metric, rows = task_named(run.task).metric, rows_of(run)
    measured = [row.stage.metrics.quality for row in rows]
    there = [start for start in STARTS if any(metric.from_position(start) in each for each in measured)]
    titles = [f"{start} to {end - 1}" for start, end in pairwise([*there, run.protocol.block_size])]
    values = (
        [metric.shown(each[key]) if (key := metric.from_position(start)) in each else "" for start in there]
        for each in measured
    )
    found = [(label(row.stage), *shown) for row, shown in zip(rows, values, strict=True)]
    return ("stage", *titles), found if there else []


def gate_line(gate: GateResult) -> str:
    """Return what came of a gate, in a line."""
    return f"gate {'kept' if gate.passed else 'MISSED'}: {gate.line}"


GATE_HEADINGS = ("gate", "limit", "value", "against", "")


def gate_cells(gate: GateResult) -> tuple[str, ...]:
    """Return one gate's cells, in the order of `GATE_HEADINGS`."""
    limit, value = bounded(gate.limit, gate.value, gate.interval)
    said = "; ".join(filter(None, ("kept" if gate.passed else "MISSED", gate.note)))
    return gate.gate, limit, value, gate.against, said
