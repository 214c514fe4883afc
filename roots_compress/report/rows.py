"""The rows of a report: each stage's figures, with the baseline's and those of the stage before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from roots_compress.evaluation.intervals import paired_interval
from roots_compress.report.spread import SPEED_NOISE, gain_of, speedup_of
from roots_compress.results import RunMetrics, StageResult
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Workload
from roots_compress.tasks.registry import task_named


@dataclass(frozen=True)
class Row:
    """One stage with the run's baseline."""

    task: Task[Any]
    stage: StageResult
    baseline: StageResult
    before: StageResult | None
    """The stage before it; None for the first."""

    @property
    def paid(self) -> bool:
        """Whether the stage is better in anything than the one before it."""
        return self.before is None or any(better for better, _ in self._changes)

    @cached_property
    def _changes(self) -> tuple[tuple[bool, str], ...]:
        return () if self.before is None else tuple(changes(self.task, self.before, self.stage))

    @property
    def verdict(self) -> str:
        """The stage's gain and cost, in a few words, and whether it was worth it."""
        if self.before is None:
            return "the model that compression starts from" if self.stage.kind == "baseline" else ""
        said = [text for _, text in self._changes]
        said += [] if self.paid else ["GAINED NOTHING: leave this stage out"]
        return f"against {self.before.name}: {', '.join(said)}"

    @property
    def times_smaller(self) -> float:
        """The ratio of the baseline's bytes to the stage's."""
        return self.baseline.metrics.bytes / self.stage.metrics.bytes

    @property
    def speedup(self) -> float:
        """The gain over the baseline in the main workload."""
        return self.speedup_in(self.task.workload)

    def speedup_in(self, workload: Workload) -> float:
        """Return the gain over the baseline in a workload; NaN where it is not known."""
        return speedup_of(self.baseline, self.stage, workload).value

    @property
    def compared_value(self) -> float:
        """The main metric compared with the baseline's: their ratio, or their difference."""
        return self.task.metric.compared(*quality_of(self.task, self.baseline, self.stage))

    @property
    def compared(self) -> str:
        """The same, as tables show it."""
        return self.task.metric.shown_compared(self.compared_value)


def rows_of(run: RunMetrics) -> tuple[Row, ...]:
    """Return the report's rows, in the order of the stages."""
    task = task_named(run.task)
    previous = (None, *run.stages[:-1])
    return tuple(
        Row(task, stage, run.stages[0], before) for before, stage in zip(previous, run.stages, strict=False)
    )


def quality_of(task: Task[Any], *stages: StageResult) -> tuple[float, ...]:
    """Return the values of the main metric."""
    return tuple(stage.metrics.quality[task.metric.name] for stage in stages)


def changes(task: Task[Any], before: StageResult, stage: StageResult) -> Iterator[tuple[bool, str]]:
    """Yield a stage's changes: whether for the better, and how much, in words."""
    if stage.metrics.bytes < before.metrics.bytes:
        yield True, f"{before.metrics.bytes / stage.metrics.bytes:.2f}x smaller"
    for workload in task.workloads:
        factor = gain_of(before, stage, workload)
        if factor > 1 + SPEED_NOISE:
            yield True, f"{workload.words} {factor:.2f}x faster"
        elif factor < 1 - SPEED_NOISE:
            yield False, f"{workload.words} {1 / factor:.2f}x SLOWER"
    values = quality_of(task, before, stage)
    noise = within_noise(task, before, stage)
    told = task.metric.change(*values)
    yield task.metric.improved(*values) and not noise, f"{told} (within noise)" if noise else told


def within_noise(task: Task[Any], before: StageResult, after: StageResult) -> bool:
    """Whether the interval of a change of quality includes no change; not where there is no interval.

    The interval that a row holds is against the run's first row. Against another row it follows from the
    scores of both.
    """
    metric = task.metric
    if before.index == 0:
        bounds = after.metrics.intervals.get(metric.compared_name)
    else:
        bounds = paired_interval(task, before.metrics, after.metrics)
    return bounds is not None and bounds[0] <= (1 if metric.relative else 0) <= bounds[1]
