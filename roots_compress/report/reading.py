"""The figures of a finished run, for reports: read from its folder, and all there."""

from __future__ import annotations

from pathlib import Path

from roots_compress.errors import InputError
from roots_compress.results import RunMetrics
from roots_compress.run.stages import figures_error, read_metrics
from roots_compress.tasks.registry import task_named


def read_figures(run: Path) -> RunMetrics:
    """Return a run's figures, after checking that each of its task's is among them.

    Raises:
        InputError: as `read_metrics` raises it; or a figure is missing.
    """
    metrics = read_metrics(run)
    try:
        task = task_named(metrics.task)
    except InputError as error:
        raise figures_error(run, error.message) from None
    for index, stage in enumerate(metrics.stages):
        for fault in task.faults(stage.metrics):
            raise figures_error(run, f"stages[{index}].{fault}")
    for index, candidate in enumerate(metrics.search.candidates if metrics.search else ()):
        for fault in task.candidate_faults(candidate.figures):
            raise figures_error(run, f"search.candidates[{index}].{fault}")
    return metrics
