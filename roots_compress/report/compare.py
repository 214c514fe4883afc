"""Runs side by side, as data: what differs by more than noise, and which settings do.

What cannot be compared is left out and said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from roots_compress.errors import InputError
from roots_compress.report.comparability import OTHER_TOKENIZER, Basis, basis_of
from roots_compress.report.differences import Axis, ComparedRow, Difference, Figure, differences, sentences
from roots_compress.report.gates import gain_fault, start_fault, workload_fault
from roots_compress.report.settings import SettingDifference, differing_settings
from roots_compress.report.spread import speedup_of
from roots_compress.report.text import label
from roots_compress.report.verdict import verdict
from roots_compress.results import RunMetrics, StageResult
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_named

MISSING = "n/a"
"""Text in tables for an unknown value."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    task: str
    runs: tuple[str, ...]
    axes: tuple[Axis, ...]
    rows: tuple[ComparedRow, ...]
    """Every stage of every run, in their order."""
    differences: tuple[Difference, ...]
    """Differences of each run except the first, by the axes that compare."""
    sentences: tuple[str, ...]
    """Which run is best in each figure, one sentence each."""
    settings: tuple[SettingDifference, ...]
    """The settings in which the recipes differ."""
    remarks: tuple[str, ...]
    """Figures that cannot be compared, with reasons."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, without the figures of single texts."""
        rows = []
        for row in self.rows:
            figures = {key: replace(figure, paired=None) for key, figure in row.figures.items()}
            rows.append(replace(row, figures=figures))
        document = asdict(replace(self, rows=tuple(rows)))
        for row in document["rows"]:
            for figure in row["figures"].values():
                del figure["paired"]
        return document


def comparison(
    runs: Sequence[tuple[str, RunMetrics]], settings: Sequence[Mapping[str, Any] | None] = ()
) -> Comparison:
    """Return runs side by side.

    Figures of quality are compared only if text, windows and tokenizer agree; those that do not depend on the
    tokenizer, if text and windows agree. Speeds are never compared across runs: each is given as a ratio to
    its own run's baseline, which was timed in turns with it.

    Args:
        runs: a name (its folder, say) and the figures of each run; at least one.
        settings: the recipe of each with every default filled in, None if unknown.

    Raises:
        InputError: the runs are not of one task.
    """
    task = _common_task(runs)
    (_, first), *others = runs
    bases = [basis_of(first.protocol, run.protocol) for _, run in others]
    agreement = any(_agreement(task, run) for _, run in runs)
    begun = [start_fault(first, run) for _, run in others if agreement or task.compares]
    if agreement and not all(basis.same_tokenizer for basis in bases):
        begun = [f"cannot be compared: {OTHER_TOKENIZER}"]
    faults = {
        "agreement": ("Agreement with the first model", begun),
        "speed": ("Gains in speed", [gain_fault(first, run) for _, run in others]),
        "memory": ("Peak memory", [workload_fault(first.protocol, run.protocol) for _, run in others]),
    }
    reasons = {
        kind: f"{words} {told[0]}."
        for kind, (words, each) in faults.items()
        if (told := [*filter(None, each)])
    }
    axes = tuple(
        axis
        for axis in _axes(task, agreement)
        if axis.metric is None or all(basis.allows(axis.metric) for basis in bases)
    )
    rows = tuple(_row(task, axes, name, run, row) for name, run in runs for row in run.stages)
    last = [next(row for row in reversed(rows) if row.run == name) for name, _ in runs]
    comparable = [axis for axis in axes if axis.compared_as not in reasons]
    return Comparison(
        task=task.name,
        runs=tuple(name for name, _ in runs),
        axes=axes,
        rows=rows,
        differences=tuple(differences(comparable, last)),
        sentences=tuple(
            sentence
            for axis in comparable
            if axis.kind != "agreement" or axis.metric == task.agreement_metrics[0]
            for sentence in sentences(axis, last)
        ),
        settings=tuple(_settings(settings)),
        remarks=(
            *_remarks(task, bases),
            *reasons.values(),
            *(f"{name}: {verdict(run).reason}" for name, run in runs if run.unfinished is not None),
            "Speed is each row's gain over its own run's baseline; timings of different runs do not compare.",
            *(
                f"The settings of {name} are not known: it has no resolved.json that can be read."
                for (name, _), each in zip(runs, settings, strict=False)
                if each is None
            ),
        ),
    )


def _settings(recipes: Sequence[Mapping[str, Any] | None]) -> Iterator[SettingDifference]:
    """Yield the settings that differ among the known recipes, with a value for each run."""
    for found in differing_settings([each for each in recipes if each is not None]):
        values = iter(found.values)
        yield replace(found, values=tuple(MISSING if each is None else next(values) for each in recipes))


def _common_task(runs: Sequence[tuple[str, RunMetrics]]) -> Task[Any]:
    task = task_named(runs[0][1].task)
    for name, run in runs:
        if run.task != task.name:
            raise InputError(
                f"is a run for the task {run.task}, and {runs[0][0]} is one for {task.name}",
                where=name,
                remedy="Compare runs of one task.",
            )
    return task


def _agreement(task: Task[Any], run: RunMetrics) -> bool:
    """Whether a run has figures of agreement with its first model."""
    return any(metric.name in row.metrics.quality for metric in task.agreement_metrics for row in run.stages)


def _axes(task: Task[Any], agreement: bool) -> Iterator[Axis]:
    yield Axis("bytes", "size", "size", "lower")
    for metric in task.metrics:
        yield Axis(metric.name, metric.heading, "quality", metric.better, metric)
    for metric in task.agreement_metrics if agreement else ():
        yield Axis(metric.name, metric.heading, "agreement", metric.better, metric)
    for workload in task.workloads:
        yield Axis(f"{workload.phase}_speedup", f"{workload.words} gain", "speed", "higher")
    yield Axis("peak_rss_bytes", "peak memory", "memory", "lower")


def _row(task: Task[Any], axes: Sequence[Axis], name: str, run: RunMetrics, row: StageResult) -> ComparedRow:
    figures = {
        "bytes": Figure(row.metrics.bytes),
        "peak_rss_bytes": Figure(row.metrics.peak_rss_bytes),
    }
    for axis in axes:
        if axis.metric is not None and axis.key in row.metrics.quality:
            paired = row.metrics if axis.metric is task.metric else None
            interval = row.metrics.intervals.get(axis.key)
            figures[axis.key] = Figure(row.metrics.quality[axis.key], interval, paired)
    for workload in task.workloads:
        gain = speedup_of(run.stages[0], row, workload)
        if not math.isnan(gain.value):
            figures[f"{workload.phase}_speedup"] = Figure(gain.value, gain.interval)
    return ComparedRow(name, label(row), row.metrics.parameters, figures)


def _remarks(task: Task[Any], bases: Sequence[Basis]) -> Iterator[str]:
    unlike = dict.fromkeys(words for basis in bases for words in basis.unlike)
    if unlike:
        yield f"Quality does not compare: {' and '.join(unlike)} differ."
        return
    if not all(basis.same_tokenizer for basis in bases):
        without = [metric.heading for metric in task.metrics if not metric.across_tokenizers]
        instead = [metric.heading for metric in task.metrics if metric.across_tokenizers]
        if without:
            advice = f"; compared are {', '.join(instead)}" if instead else ""
            yield f"The tokenizers differ: {', '.join(without)} cannot be compared{advice}."
