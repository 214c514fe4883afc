"""A run as a table for the terminal, and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from roots_compress.errors import printable
from roots_compress.report.rows import Row, rows_of, speeds
from roots_compress.results import CandidateResult, RunMetrics, SearchResult, StageResult, candidate_label
from roots_compress.stages.registry import stage_of_kind
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures import Workload
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
    return f"{task.workload.phase} gain"


def cells(row: Row) -> tuple[str, ...]:
    """Return one row's cells, in the order of `headings`."""
    metrics, task = row.stage.metrics, row.task
    first, *others = (metric.shown(metrics.quality[metric.name]) for metric in task.metrics)
    return (
        label(row.stage),
        f"{metrics.parameters:,}",
        f"{metrics.bytes / 1e6:.1f}" if metrics.bytes >= 1e6 else f"{metrics.bytes / 1e6:.3f}",
        f"{row.times_smaller:.2f}x",
        *(first, row.compared, *others),
        *(speed_cell(row.stage, workload) for workload in task.workloads),
        f"{row.speedup:.2f}x",
        f"{metrics.peak_rss_bytes / 1e6:.0f}",
        f"{row.stage.seconds:.1f}",
    )


def label(stage: StageResult) -> str:
    """Return the stage's name, with its kind where the two differ."""
    return stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"


def speed_cell(stage: StageResult, workload: Workload) -> str:
    """Return the medians at each context, shortest first: `592 / 711`."""
    return " / ".join(f"{speed.median:.0f}" for speed in speeds(stage, workload))


def table(run: RunMetrics) -> Table:
    """Return the run as a rich table."""
    result = Table(title=shown(run.name), caption=shown(caption(run)), caption_justify="left")
    for index, heading in enumerate(headings(task_named(run.task))):
        result.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows_of(run):
        result.add_row(*(shown(cell) for cell in cells(row)))
    return result


def tables(run: RunMetrics) -> tuple[Table, ...]:
    """Return the run as a table and, where it was searched for, what was found as another."""
    return (
        (table(run),) if run.search is None else (table(run), search_table(task_named(run.task), run.search))
    )


def search_table(task: Task[Any], search: SearchResult) -> Table:
    """Return the candidates of a search, by rising size."""
    result = Table(title="Search", caption=shown(search_caption(search)), caption_justify="left")
    for index, heading in enumerate(search_headings(task)):
        result.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for candidate in search.candidates:
        result.add_row(*(shown(cell) for cell in search_cells(task, candidate, search)))
    return result


def search_headings(task: Task[Any]) -> tuple[str, ...]:
    """Return the headings of a search's table."""
    costs = f"{task.workload.phase} ms", task.metric.heading
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
        "the baseline, at the longest context; medians."
    )
    if not any(candidate.keeps_budgets for candidate in search.candidates):
        said += " NO CANDIDATE KEEPS ALL BUDGETS: the best is the one that comes nearest."
    if search.untried:
        said += f" {search.untried} candidates were not tried within {search.max_minutes:g} minutes."
    return said + "".join(f" {name} failed: {why}." for name, why in search.failed.items())


def shown(text: str) -> str:
    """Return what stands for a text from a file in a rich table: neither markup nor control characters."""
    return escape(printable(text))


def caption(run: RunMetrics) -> str:
    """Say how the figures were made."""
    said = task_named(run.task).caption(run.protocol)
    for row in run.stages:
        stage = stage_of_kind(row.kind)
        if stage is not None and (decided := stage.caption(row.notes)):
            said += f" {label(row)}: {decided}."
    return said


def markdown(run: RunMetrics) -> str:
    """Return the run as a Markdown document."""
    task = task_named(run.task)
    titles = headings(task)
    lines = [
        f"# {_plain(run.name)}",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
        *("| " + " | ".join(_plain(cell) for cell in cells(row)) + " |" for row in rows_of(run)),
        "",
        _plain(caption(run)),
        "",
        *(f"- **{_plain(label(row.stage))}**: {_plain(row.verdict)}" for row in rows_of(run)),
    ]
    if run.gates:
        lines += ["", "| gate | limit | value | |", "|---|---|---|---|"]
        lines += [
            f"| {_plain(gate.gate)} | {gate.limit:.4g} | {gate.value:.4g} "
            f"| {'kept' if gate.passed else 'MISSED'} |"
            for gate in run.gates
        ]
    if run.search:
        titles = search_headings(task)
        lines += ["", "## Search", "", "| " + " | ".join(titles) + " |"]
        lines += ["|" + "---|" * len(titles)]
        rows = (search_cells(task, candidate, run.search) for candidate in run.search.candidates)
        lines += ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
        lines += ["", _plain(search_caption(run.search))]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Escape what Markdown or an HTML renderer would read as markup."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_~[]|":
        escaped = escaped.replace(mark, "\\" + mark)
    return " ".join(escaped.split())
