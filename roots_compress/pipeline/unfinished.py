"""The state of a failed, stopped or running run: its finished stages, and their gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from roots_compress.configs.recipe.growth import read_resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.pipeline.preflight import task_for
from roots_compress.pipeline.steps import steps_of
from roots_compress.report.gates import judge_stages
from roots_compress.report.junit import Case, suite
from roots_compress.results import Protocol, RunMetrics, StageResult
from roots_compress.run.folders import unfinished_folders
from roots_compress.run.run_folder import why_unfinished
from roots_compress.run.stages import CommittedStage, read_stages
from roots_compress.runtime.onnx.graph_folder import find_graph
from roots_compress.tasks.registry import task_of_graph

WAITING = "waits for the stage before it"
AT_THE_END = "is judged when the run is finished"
REST = "figures of the run"
"""The work after the last stage: the search, the timing of all graphs, the report."""
_UNKNOWN = Protocol(0, 0, 0, 0, False, "", "", (), 0, 0, 0, "")
"""Written at a run's end. Gates between rows of one run do not need it."""


def unfinished_junit(run: Path) -> str | None:
    """Return the stages and gates of an unfinished run as JUnit XML; None if there is no such run.

    Finished stages pass. The next one is an error, and says why the run failed if that is known. Stages
    after it are skipped, and so is each gate on a figure that is taken at the run's end.

    Raises:
        InputError: the run's recipe cannot be read.
    """
    why = why_unfinished(run)
    recipe = None if why is None else read_resolved(run)
    return None if why is None or recipe is None else suite(recipe.name, _cases(run, recipe, why))


def _cases(run: Path, recipe: Recipe, why: str) -> Iterator[Case]:
    finished = _finished(run, recipe)
    rows = [stage.result for stage in finished]
    names = [*(step.name for step in steps_of(recipe)), REST]
    yield from map(Case.of_stage, rows)
    failed, *waiting = names[len(rows) :]
    yield Case(failed, failed, "error", why)
    yield from (Case(name, name, "skipped", WAITING) for name in waiting)
    judged = {case.name: case for case in _judged(recipe, finished, rows)}
    yield from judged.values()
    gates = [("", gate) for gate in recipe.gates.limits]
    for step in steps_of(recipe):
        if step.config is not None and step.config.gates is not None:
            gates += [(step.name, f"{step.name}.{gate}") for gate in step.config.gates.limits]
    yield from (Case(stage, name, "skipped", AT_THE_END) for stage, name in gates if name not in judged)


def _finished(run: Path, recipe: Recipe) -> list[CommittedStage]:
    """Return the recipe's finished stages: up to the one in progress, or made by another recipe."""
    chain, _ = read_stages(run)
    partial = [index for _, index, _, state in unfinished_folders(run) if state == "partial"]
    found: list[CommittedStage] = []
    for stage, step in zip(chain[: min(partial, default=None)], steps_of(recipe), strict=False):
        if not step.made(stage):
            break
        found.append(stage)
    return found


def _judged(
    recipe: Recipe, finished: Sequence[CommittedStage], rows: Sequence[StageResult]
) -> Iterator[Case]:
    """Yield the gates whose figures the finished stages have; a stored run is not read here."""
    if not finished:
        return
    task = task_for(recipe, task_of_graph(find_graph(finished[0].onnx)))
    figures = RunMetrics(recipe.name, {}, _UNKNOWN, tuple(rows), task=task.name)
    made = recipe.stages[: len(rows) if recipe.makes_model else len(rows) - 1]
    alone = [
        each.model_copy(update={"gates": None}) if each.gates and each.gates.stored is not None else each
        for each in made
    ]
    for gate in judge_stages(recipe.model_copy(update={"stages": alone}), figures, {}):
        if gate.value is not None:
            yield Case.of_gate(gate)
