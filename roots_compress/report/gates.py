"""Checks a run against the bounds of its recipe and stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from roots_compress.configs.gates import GatesConfig
from roots_compress.configs.recipe.schema import BASELINE_NAME, Recipe
from roots_compress.errors import GateMissedError
from roots_compress.evaluation.intervals import Interval
from roots_compress.report.comparability import NOT_MEASURED, Basis, basis_of
from roots_compress.report.spread import Measured, relative, speedup_of, time_of
from roots_compress.results import GateResult, Protocol, RunMetrics, StageResult
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Metric, Workload
from roots_compress.tasks.registry import task_named

OF_ANY_TASK = frozenset({"max_bytes", "min_size_ratio", "max_peak_rss_bytes"})
"""Gates on figures of every model."""
WEIGHED = frozenset({"max_bytes", "min_size_ratio"})
"""Those of them that a search uses."""
NOT_TIMED = "was not timed at a length that both have"
UNCERTAIN = "not certain: the interval holds the limit"
MACHINE = ("cpu", "instruction_set", "threads")
"""Properties of the machine that must be equal to compare the gains of two runs."""


@dataclass(frozen=True)
class Found:
    """A measured figure that a gate bounds."""

    value: float | None
    interval: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """The bounded row and the row it is compared with, each in its run."""

    task: Task[Any]
    run: RunMetrics
    row: StageResult
    other: RunMetrics
    reference: StageResult

    @property
    def label(self) -> str:
        """The reference for people: its name, after its run's name if that is another run."""
        return self.reference.name if self.other is self.run else f"{self.other.name}/{self.reference.name}"

    def figures(self) -> dict[str, Callable[[], Found]]:
        """Return how each gate's figure is found, by the gate's name."""
        found: dict[str, Callable[[], Found]] = {
            "max_bytes": lambda: Found(float(self.row.metrics.bytes)),
            "min_size_ratio": lambda: Found(self.reference.metrics.bytes / self.row.metrics.bytes),
            "max_peak_rss_bytes": lambda: Found(float(self.row.metrics.peak_rss_bytes)),
        }
        for metric in (*self.task.metrics, *self.task.agreement_metrics):
            found[metric.bound] = partial(self._value, metric)
            found[metric.compared_bound] = partial(self._compared, metric)
        for workload in self.task.workloads:
            found[f"max_{workload.time_name}"] = partial(self._time, workload)
            found[workload.speedup_bound] = partial(self._speedup, workload)
        return found

    def _value(self, metric: Metric) -> Found:
        value = self.row.metrics.quality.get(metric.name)
        return Found(value, note="" if value is not None else NOT_MEASURED)

    def _compared(self, metric: Metric) -> Found:
        if metric.to_first and (reason := start_fault(self.run, self.other)):
            return Found(None, note=reason)
        basis = Basis() if self.other is self.run else basis_of(self.other.protocol, self.run.protocol)
        value, note = basis.compare(metric, self.reference.metrics.quality, self.row.metrics.quality)
        return Found(value, note=note)

    def _time(self, workload: Workload) -> Found:
        return _timed(time_of(self.row, workload))

    def _speedup(self, workload: Workload) -> Found:
        if self.other is self.run:
            return _timed(speedup_of(self.reference, self.row, workload))
        if reason := gain_fault(self.run, self.other):
            return Found(None, note=reason)
        now = speedup_of(self.run.stages[0], self.row, workload)
        then = speedup_of(self.other.stages[0], self.reference, workload)
        return _timed(relative(now, then), "as gains over each run's own baseline")


def _timed(measured: Measured, note: str = "") -> Found:
    if math.isnan(measured.value):
        return Found(None, note=NOT_TIMED)
    return Found(measured.value, measured.interval, note)


def same_start(run: RunMetrics, other: RunMetrics) -> bool:
    """Whether two runs began with models of equal size, according to their figures."""
    return run.stages[0].metrics.parameters == other.stages[0].metrics.parameters


def start_fault(run: RunMetrics, other: RunMetrics) -> str:
    """Return why figures relative to two runs' first models do not compare; empty if they do."""
    return "" if same_start(run, other) else "cannot be compared: the runs began with different models"


def gain_fault(run: RunMetrics, other: RunMetrics) -> str:
    """Return why the gains in speed of two runs do not compare; empty if they do."""
    return (
        start_fault(run, other)
        or workload_fault(run.protocol, other.protocol)
        or machine_fault(run.machine, other.machine)
    )


def workload_fault(protocol: Protocol, other: Protocol) -> str:
    """Return why gains and peak memory were measured on different work; empty if they were not."""
    asked = ((max(each.contexts, default=0), each.decode_tokens) for each in (protocol, other))
    return "" if len({*asked}) == 1 else "cannot be compared: the contexts or the decoded tokens differ"


def machine_fault(machine: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return why gains on two machines do not compare; empty if they do."""
    unlike = [key.replace("_", " ") for key in MACHINE if machine.get(key) != other.get(key)]
    return f"cannot be compared: the runs' {' and '.join(unlike)} differ" if unlike else ""


def judge_recipe(
    recipe: Recipe, run: RunMetrics, stored: Mapping[Path, RunMetrics]
) -> tuple[GateResult, ...]:
    """Return one result for each gate: the recipe's, its stages', and those that stages' own settings are.

    Args:
        recipe: as the run carried it out.
        run: its figures, speeds included.
        stored: the runs that gates compare with, by their paths.
    """
    return (*judge(recipe.gates, run, stored=stored), *judge_stages(recipe, run, stored))


def judge_stages(recipe: Recipe, run: RunMetrics, stored: Mapping[Path, RunMetrics]) -> Iterator[GateResult]:
    """Yield one result for each gate of the recipe's stages, as `judge_recipe` does."""
    made = run.stages if recipe.makes_model else run.stages[1:]
    for stage, row in zip(recipe.stages, made, strict=True):
        if stage.gates is not None:
            for gate in judge(stage.gates, run, row, stored=stored):
                yield replace(gate, gate=f"{row.name}.{gate.gate}")
    for row in run.stages:
        yield from (replace(gate, gate=f"{row.name}.{gate.gate}", stage=row.name) for gate in row.gates)


def judge(
    gates: GatesConfig,
    run: RunMetrics,
    row: StageResult | None = None,
    *,
    stored: Mapping[Path, RunMetrics] | None = None,
) -> tuple[GateResult, ...]:
    """Return one result for each gate that is set.

    Args:
        gates: the bounds.
        run: the figures of the row's run.
        row: the row that is bounded, and of a stored run compared with the row of its name. Without it, the
            last of each.
        stored: the runs that gates compare with, by their paths.
    """
    other = run if gates.stored is None else (stored or {})[gates.stored]
    if gates.stored is None:
        reference = row_named(run, gates.against or BASELINE_NAME) or run.stages[0]
    else:
        found = counterpart(other, row.name if row else None)
        assert found is not None  # as the pipeline has checked
        reference = found
    pair = Pair(task_named(run.task), run, row or run.stages[-1], other, reference)
    figures = pair.figures()
    return tuple(
        _judged(gate, float(limit), figures[gate](), pair, compared=gate in gates.comparing)
        for gate, limit in gates.limits.items()
    )


def counterpart(stored: RunMetrics, name: str | None) -> StageResult | None:
    """Return the row of a stored run that a row is compared with: of its name, or the last without one."""
    return stored.stages[-1] if name is None else row_named(stored, name)


def row_named(run: RunMetrics, name: str) -> StageResult | None:
    """Return a run's row by its name; None where it has none."""
    return next((row for row in run.stages if row.name == name), None)


def _judged(gate: str, limit: float, found: Found, pair: Pair, *, compared: bool) -> GateResult:
    """Return whether a bound was kept, by the best end of an interval, if there is one."""
    if found.value is not None and not math.isfinite(found.value):
        found = Found(None, note="is not a finite number")
    value, note, is_most = found.value, found.note, gate.startswith("max_")
    low, high = found.interval or (value, value)
    best, worst = (low, high) if is_most else (high, low)
    passed = _within(best, limit, is_most=is_most)
    if passed and not _within(worst, limit, is_most=is_most):
        note = "; ".join(filter(None, (note, UNCERTAIN)))
    return GateResult(
        gate=gate,
        limit=limit,
        value=value,
        passed=passed,
        stage=pair.row.name,
        against=pair.label if compared else "",
        interval=found.interval,
        note=note,
    )


def _within(value: float | None, limit: float, *, is_most: bool) -> bool:
    """Whether a value is within a limit; a figure that is not a number is within none."""
    return value is not None and (value <= limit if is_most else value >= limit)


CHANGE = "The run is complete and its report written; change the recipe's stages or its gates."


def require(results: tuple[GateResult, ...], where: str, *, remedy: str = CHANGE) -> None:
    """Raise for the gates that were missed.

    Raises:
        GateMissedError: names each missed gate, its limit and its value.
    """
    missed = [gate for gate in results if not gate.passed]
    if missed:
        raise GateMissedError(
            f"{len(missed)} of {len(results)} gates missed: {'; '.join(gate.line for gate in missed)}",
            where=where,
            remedy=remedy,
        )
