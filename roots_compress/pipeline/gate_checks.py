"""Checks of a recipe's gates before anything is made: whether their figures will exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from roots_compress.configs.gates import AGAINST
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.walk import placed_gates
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import InputError, Key, recipe_key
from roots_compress.io.atomic import real_path
from roots_compress.report.comparability import basis_of
from roots_compress.report.gates import OF_ANY_TASK, WEIGHED, counterpart, machine_fault
from roots_compress.report.reading import read_figures
from roots_compress.results import RunMetrics
from roots_compress.system.machine import describe_machine
from roots_compress.tasks.base import Task


def check_gates(recipe: Recipe, task: Task[Any]) -> None:
    """Refuse a gate on a figure that the models' task does not have, or that a search does not use.

    Raises:
        InputError: there is such a one.
    """
    measured = OF_ANY_TASK | task.gates
    for place, gates, stage in placed_gates(recipe):
        weighed = recipe.search is not None and stage is None
        possible = WEIGHED | task.budgets if weighed else measured
        for gate in gates.limits:
            if gate in possible:
                _require_package(task, gate, recipe_key(*place, gate))
                continue
            raise InputError(
                "is no budget that a search can weigh candidates by"
                if gate in measured
                else f"bounds a figure that models for {task.name} do not have",
                where=recipe_key(*place, gate),
                remedy=f"Use one of: {', '.join(sorted(possible & type(gates).model_fields.keys()))}.",
            )


def _require_package(task: Task[Any], gate: str, where: Key) -> None:
    """Refuse a gate on a figure whose package is not installed.

    Raises:
        InputError: the metric's package is not installed.
    """
    for metric in task.metrics:
        bounds = gate in (metric.bound, metric.compared_bound)
        if bounds and metric.package and find_spec(metric.package) is None:
            raise InputError(
                f"bounds {metric.heading}, for which the package {metric.package} is not installed",
                where=where,
                remedy="Install it: pip install 'roots-compress[references]'",
            )


def read_stored(recipe: Recipe, folder: Path, task: Task[Any], threads: int) -> dict[Path, RunMetrics]:
    """Return the stored runs that gates compare with, by path.

    Raises:
        InputError: one is missing or cannot be read, is the run itself, has another task, lacks the row, or
            was timed on another machine although a gate on speed compares with it.
    """
    stored: dict[Path, RunMetrics] = {}
    for place, gates, stage in placed_gates(recipe):
        path = gates.stored
        if path is None:
            continue
        where = recipe_key(*place, AGAINST)
        if real_path(path).is_relative_to(real_path(folder)):
            raise InputError(
                "is the run itself, whose figures are written anew",
                where=where,
                remedy="Copy its metrics.json to a place outside, and name that.",
            )
        try:
            run = read_figures(path)
        except InputError as error:
            error.message, error.where = f"{error.where}: {error.message}", where
            error.remedy = (
                "Name a finished run's folder, or its metrics.json. "
                "Relative paths in a recipe start from its own folder."
            )
            raise
        if run.task != task.name:
            raise InputError(
                f"{path} is a run for {run.task}, and this is one for {task.name}",
                where=where,
                remedy="Name a run of the same task.",
            )
        if counterpart(run, stage) is None:
            names = ", ".join(row.name for row in run.stages)
            raise InputError(
                f"{path} has no stage '{stage}'; it has {names}",
                where=where,
                remedy="Give the stages of both runs the same names, or set the gates at the recipe's top.",
            )
        machine = describe_machine(threads=threads, device="cpu")
        speedups = [work.speedup_bound for work in task.workloads if work.speedup_bound in gates.limits]
        if speedups and (fault := machine_fault(machine, run.machine)):
            raise InputError(
                f"{path}: {fault}",
                where=recipe_key(*place, speedups[0]),
                remedy="Measure the stored run anew on this machine, or compare speed with the baseline.",
            )
        stored[path] = run
    return stored


def check_protocol(
    recipe: Recipe, task: Task[Any], stored: Mapping[Path, RunMetrics], examples: EvaluationWindows
) -> None:
    """Refuse a gate that compares quality with a stored run that was measured differently.

    Raises:
        InputError: text or windows differ, or the tokenizers differ and no figure is comparable.
    """
    count, block_size = examples.input_ids.shape
    for place, gates, _ in placed_gates(recipe):
        if gates.stored is None:
            continue
        theirs = stored[gates.stored].protocol
        ours = replace(
            theirs,
            windows=count,
            block_size=block_size,
            bos=examples.bos,
            text_sha256=examples.text_sha256,
            tokenizer_sha256=examples.tokenizer_sha256,
        )
        basis = basis_of(theirs, ours)
        for metric in (*task.metrics, *task.agreement_metrics):
            if metric.compared_bound not in gates.limits or basis.allows(metric):
                continue
            if basis.unlike or metric.logarithm is None:
                unlike = " and ".join(basis.unlike or ("the tokenizers",))
                raise InputError(
                    f"cannot be compared with {gates.stored}: {unlike} differ",
                    where=recipe_key(*place, metric.compared_bound),
                    remedy="Measure both runs on the same held-out text, or bound the figure itself: "
                    f"{metric.bound}.",
                )
