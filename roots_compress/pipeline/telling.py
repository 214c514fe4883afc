"""Events of a run and its stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from roots_compress.events import (
    ChainPlanned,
    Events,
    Figure,
    GateJudged,
    PlannedStage,
    StageFinished,
)
from roots_compress.pipeline.steps import Step
from roots_compress.results import RunMetrics, StageResult
from roots_compress.tasks.base import Task


def tell_chain(events: Events, steps: Iterable[Step], seconds: Mapping[tuple[str, str], float]) -> None:
    """Emit the stages of a run.

    Args:
        seconds: the approximate time of each, by kind and name.
    """
    events.emit(
        ChainPlanned(
            tuple(
                PlannedStage(index, step.kind, step.name, seconds.get((step.kind, step.name)))
                for index, step in enumerate(steps)
            )
        )
    )


def tell_stage(
    events: Events,
    row: StageResult,
    task: Task[Any],
    origin: Literal["made", "reused", "restored"],
    *,
    largest_difference: float | None = None,
) -> None:
    """Emit a finished stage's figures, and that it has finished."""
    own, metrics = events.of_stage(row.index), row.metrics
    sizes = {each: getattr(metrics, each) for each in ("parameters", "bytes", "peak_rss_bytes")}
    for name, value in {**sizes, **metrics.quality, "seconds": row.seconds}.items():
        own.figure(name, value)
    summary = f"{metrics.bytes / 1e6:.2f} MB, {task.summary(metrics.quality)}"
    events.emit(
        StageFinished(row.index, row.kind, row.name, origin, row.whole_seconds, summary, largest_difference)
    )


def tell_run(events: Events, metrics: RunMetrics) -> None:
    """Emit the facts known only at the end of a run: speeds, and whether its gates were kept."""
    for row in metrics.stages:
        for name, speeds in row.metrics.timings.items():
            for speed in speeds:
                events.emit(Figure(name, speed.median, stage=row.index, context=speed.context))
    for gate in metrics.gates:
        value, limit = gate.value, gate.limit
        events.emit(GateJudged(gate.gate, limit, value, gate.passed, gate.stage, gate.against, gate.note))
