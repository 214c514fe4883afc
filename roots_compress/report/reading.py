"""The figures of a finished run, for reports: read from its folder, and all there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from roots_compress.configs.recipe.growth import RESOLVED_NAME
from roots_compress.configs.recipe.loading import parse_recipe, resolved
from roots_compress.errors import InputError
from roots_compress.io.atomic import read_regular
from roots_compress.io.json_files import read_json_object
from roots_compress.results import Metrics, RunMetrics
from roots_compress.run.run_folder import why_unfinished
from roots_compress.run.stages import METRICS_NAME, figures_error, figures_file, read_metrics
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_named

MAX_RECIPE_BYTES = 1 << 20
"""A larger one is not shown."""


def read_recipe(run: Path) -> str | None:
    """Return the text of a run's recipe; None where there is none that can be read."""
    path = figures_file(run)
    if path.name != METRICS_NAME:
        return None  # The file was kept under another name: what lies beside it is not the run's.
    try:
        return read_regular(path.with_name("recipe.yaml"), MAX_RECIPE_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return None


def read_figures(run: Path) -> RunMetrics:
    """Return a run's figures, after checking that each of its task's is among them.

    Where a later attempt at the run has not finished, they say so.

    Raises:
        InputError: as `read_metrics` raises it; or a figure is missing.
    """
    metrics = read_metrics(run)
    try:
        task = task_named(metrics.task)
    except InputError as error:
        raise figures_error(run, error.message) from None
    if not metrics.stages:
        raise figures_error(run, "stages: there is none")
    for index, stage in enumerate(metrics.stages):
        for fault in _faults(task, stage.metrics):
            raise figures_error(run, f"stages[{index}].{fault}")
    for index, candidate in enumerate(metrics.search.candidates if metrics.search else ()):
        for fault in _candidate_faults(task, candidate.figures):
            raise figures_error(run, f"search.candidates[{index}].{fault}")
    path = figures_file(run)
    why = why_unfinished(path.parent) if path.name == METRICS_NAME else None
    return metrics if why is None else replace(metrics, unfinished=why.partition("\n")[0])


def _faults(task: Task[Any], metrics: Metrics) -> Iterator[str]:
    """Yield what a row lacks of its task's figures, each by its key."""
    needed = (metric.name for metric in task.metrics if not metric.optional)
    for name in (*needed, task.checkpoint_figure):
        if name not in metrics.quality:
            yield f"{name} is missing, or is not a number"
    for metric in task.metrics:
        if metric.relative and metrics.quality.get(metric.name, 1.0) <= 0:
            yield f"{metric.name} is {metrics.quality[metric.name]}, not above 0"
    for workload in task.workloads:
        if workload.figure not in metrics.timings:
            yield f"{workload.figure} is missing"


def _candidate_faults(task: Task[Any], figures: Mapping[str, float]) -> Iterator[str]:
    """Yield which of its task's figures a candidate of a search lacks."""
    positive = {task.workload.time_name: True, task.metric.compared_name: task.metric.relative}
    for name, is_positive in positive.items():
        if name not in figures:
            yield f"{name} is missing, or is not a number"
        elif is_positive and figures[name] <= 0:
            yield f"{name} is {figures[name]}, not above 0"


def read_settings(run: Path) -> dict[str, Any] | None:
    """Return the recipe of a run with every default filled in, as JSON; None where the run has none.

    So is it where its file cannot be read: figures compare without it. A recipe of another version that is
    none today is returned as it is.
    """
    path = figures_file(run).with_name(RESOLVED_NAME)
    try:
        document = read_json_object(path)
    except (InputError, OSError):
        return None
    try:
        return resolved(parse_recipe(document))
    except InputError:
        return document


def short_names(runs: Sequence[Path]) -> list[str]:
    """Return the shortest names by which runs are told apart: the ends of their folders' paths.

    Runs of one folder, such as a run named twice, get numbers.
    """
    parts = [figures_file(run).parent.absolute().parts for run in runs]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        names = [str(Path(*each[-count:])) for each in parts]
        if len(set(names)) == len({*parts}):
            break
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
