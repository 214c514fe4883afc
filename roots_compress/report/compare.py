"""Runs side by side, as data: what differs by more than noise, and which settings do.

What cannot be compared is left out and said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from roots_compress.errors import InputError
from roots_compress.evaluation.intervals import Interval, paired_difference
from roots_compress.report.comparability import OTHER_TOKENIZER, Basis, basis_of
from roots_compress.report.gates import gain_fault, same_start, workload_fault
from roots_compress.report.settings import SettingDifference, differing_settings
from roots_compress.report.spread import speedup_of
from roots_compress.report.text import label, megabytes
from roots_compress.report.verdict import verdict
from roots_compress.results import Metrics, RunMetrics, StageResult
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Metric
from roots_compress.tasks.registry import task_named

MEMORY_NOISE = 0.02
"""Peak memory of one graph differs by as much from one process to the next; less is no difference."""
MISSING = "n/a"
"""Stands in tables for what is not known."""
QUALITY_ALONE = "intervals overlap, so on another text it may be the other way round"
QUALITY_IN_PAIRS = "interval of the difference holds 0, so on another text it may be the other way round"


@dataclass(frozen=True)
class Figure:
    """One figure of a row, with the interval that is known of it."""

    value: float
    interval: Interval | None = None
    paired: Metrics | None = None
    """Of the metric that decides: the row, which holds it text by text, so that two compare in pairs."""


@dataclass(frozen=True)
class Axis:
    """A figure that runs are compared by."""

    key: str
    """As in CSV and JSON: `bytes`, `perplexity`, `decode_speedup`."""
    heading: str
    kind: Literal["size", "quality", "agreement", "speed", "memory"]
    better: Literal["lower", "higher"]
    metric: Metric | None = None
    """Of quality, and of agreement with the run's first model."""

    def shown(self, value: float) -> str:
        """Return a value as tables show it."""
        if self.metric is not None:
            return self.metric.shown(value)
        if self.kind == "size":  # Digits enough to tell runs apart.
            return f"{value / 1e6:#.4g} MB" if value < 9.9995e8 else f"{value / 1e6:,.0f} MB"
        return f"{value:.2f}x" if self.kind == "speed" else f"{megabytes(value)} MB"

    def change(self, before: float, after: float) -> str:
        """Return how a value differs from another: `+5.0%`, or `-0.012`."""
        if self.metric is not None and not self.metric.relative:
            return self.metric.shown_compared(after - before)
        return f"{round(after / before - 1, 3) + 0.0:+.1%}"


@dataclass(frozen=True)
class ComparedRow:
    """One stage of a run; figures by the keys of the axes, without those that do not compare."""

    run: str
    stage: str
    parameters: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Difference:
    """How the last row of a run differs from that of the first run in one figure."""

    key: str
    run: str
    change: str
    """`+5.0%`, or `-0.012` of a figure that compares by differences."""
    verdict: Literal["better", "worse", "equal", "within noise"]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    task: str
    runs: tuple[str, ...]
    axes: tuple[Axis, ...]
    rows: tuple[ComparedRow, ...]
    """Every stage of every run, in their order."""
    differences: tuple[Difference, ...]
    """Of each run but the first, by the axes that compare."""
    sentences: tuple[str, ...]
    """Which run is better for what, a sentence each."""
    settings: tuple[SettingDifference, ...]
    """The settings in which the recipes differ."""
    remarks: tuple[str, ...]
    """What does not compare, and why."""

    def to_json(self) -> dict[str, Any]:
        """Return what stands in JSON: all of it, but for the figures of rows text by text."""
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

    Figures of quality are compared only where text, windows and tokenizer agree; those that do not depend on
    the tokenizer, where text and windows do. Speeds are never compared across runs: each is given as a ratio
    to its own run's baseline, which was timed in turns with it.

    Args:
        runs: a name (its folder, say) and the figures of each run; at least one.
        settings: the recipe of each with every default filled in, None where it is not known.

    Raises:
        InputError: the runs are not of one task.
    """
    task = _common_task(runs)
    (_, first), *others = runs
    bases = [basis_of(first.protocol, run.protocol) for _, run in others]
    agreement = any(_agreement(task, run) for _, run in runs)
    begun = [gain_fault(first, run) for _, run in others if agreement and not same_start(first, run)]
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
    comparable = [axis for axis in axes if axis.kind not in reasons]
    return Comparison(
        task=task.name,
        runs=tuple(name for name, _ in runs),
        axes=axes,
        rows=rows,
        differences=tuple(_differences(comparable, last)),
        sentences=tuple(
            sentence
            for axis in comparable
            if axis.kind != "agreement" or axis.metric == task.agreement_metrics[0]
            for sentence in _sentences(axis, last)
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


def _apart(axis: Axis, one: Figure, other: Figure) -> bool:
    """Whether two figures differ by more than is known of their noise."""
    if axis.kind == "memory":
        return abs(one.value - other.value) > MEMORY_NOISE * max(one.value, other.value)
    if (difference := _difference(one, other)) is not None:
        return not difference[0] <= 0 <= difference[1]
    (low, high), (least, most) = (each.interval or (each.value, each.value) for each in (one, other))
    return low > most or least > high


def _difference(one: Figure, other: Figure) -> Interval | None:
    """Return the interval of two figures' difference, text by text; None where they are not so known."""
    if one.paired is None or other.paired is None:
        return None
    return paired_difference(one.paired, other.paired)


def _differences(axes: Sequence[Axis], last: Sequence[ComparedRow]) -> Iterator[Difference]:
    for row in last[1:]:
        for axis in axes:
            if axis.key not in row.figures or axis.key not in last[0].figures:
                continue
            before, after = last[0].figures[axis.key], row.figures[axis.key]
            verdict: Literal["better", "worse", "equal", "within noise"] = "within noise"
            if before.value == after.value:
                verdict = "equal"
            elif _apart(axis, before, after):
                verdict = "better" if (after.value < before.value) == (axis.better == "lower") else "worse"
            if before.value or (axis.metric is not None and not axis.metric.relative):
                yield Difference(axis.key, row.run, axis.change(before.value, after.value), verdict)


def _sentences(axis: Axis, last: Sequence[ComparedRow]) -> Iterator[str]:
    """Yield which run is best by an axis; nothing where fewer than two have the figure."""
    having = [row for row in last if axis.key in row.figures]
    if len(having) < 2:
        return
    ordered = sorted(having, key=lambda row: row.figures[axis.key].value, reverse=axis.better == "higher")
    best, second = ordered[:2]
    mine, its = best.figures[axis.key], second.figures[axis.key]
    words = axis.heading[:1].upper() + axis.heading[1:]
    if mine.value == ordered[-1].figures[axis.key].value:
        yield f"{words}: no difference, {axis.shown(mine.value)}."
        return
    told = f"{best.run} is best with {_told(axis, mine)}; {second.run} has {_told(axis, its)}"
    if mine.value == its.value:
        told = f"{best.run} and {second.run} are best with {_told(axis, mine)}"
    elif not _apart(axis, mine, its):
        if axis.metric is None:
            noise = "the repeats do" if axis.kind == "speed" else "noise"
            told = f"{best.run} and {second.run} do not differ by more than {noise}: "
            told += f"{_told(axis, mine)} and {_told(axis, its)}"
        else:
            told += f"; the 95% {QUALITY_ALONE if _difference(mine, its) is None else QUALITY_IN_PAIRS}"
    yield f"{words}: {told}."


def _told(axis: Axis, figure: Figure) -> str:
    interval = figure.interval
    spread = f" ({axis.shown(interval[0])} to {axis.shown(interval[1])})" if interval else ""
    return f"{axis.shown(figure.value)}{spread}"
