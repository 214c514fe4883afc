"""Carries a search out: makes candidates in one run, the most promising first, and ends as the best one's.

Candidates share what they begin with. A stage that gives way to another is kept in the run's stage cache, so
each is made once, in this search and in those that go on from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.writing import recipe_yaml
from roots_compress.errors import RootsError
from roots_compress.events import CandidateChosen, CandidateStarted, Events, RunStarted
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.runner import describe, finish, make_rows, time_rows
from roots_compress.report.rows import quality_of
from roots_compress.results import CandidateResult, RunMetrics, SearchResult, candidate_label
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage
from roots_compress.search.choice import best, budgets_of, front, overrun
from roots_compress.search.figures import Figures, baseline_of, outcomes_of
from roots_compress.search.plan import candidate_keys, known_of
from roots_compress.search.record import NAME, Record
from roots_compress.search.space import Candidate, Space
from roots_compress.search.succession import first_untried, next_candidate, next_listed, ruled_out
from roots_compress.stages.registry import stage_of
from roots_compress.tasks.base import Task


def answer(
    task: Task[Any], space: Space, figures: Mapping[Candidate, Figures], failed: Mapping[Candidate, str]
) -> SearchResult:
    """Return what a search has found."""
    search = space.recipe.search
    assert search is not None
    points = {candidate: outcome.point for candidate, outcome in outcomes_of(figures).items()}
    budgets = budgets_of(task, space.recipe.gates, *baseline_of(figures))
    on_front = front(points)
    rows = (
        CandidateResult(
            stages=candidate,
            role=space.role_of(candidate),
            bytes=figures[candidate].bytes,
            figures={
                task.workload.time_name: point.milliseconds,
                task.metric.compared_name: task.metric.of_cost(point.cost),
            },
            on_front=candidate in on_front,
            keeps_budgets=overrun(point, budgets) == 0,
            seconds=figures[candidate].seconds,
        )
        for candidate, point in sorted(points.items(), key=lambda item: item[1])
    )
    found = best(points, budgets)
    ended = bool(space.listed)
    if space.listed:
        # Of those that keep the budgets, the one that loses least; where none does, the nearest of all.
        found = min(
            points,
            key=lambda each: (overrun(points[each], budgets), each not in space.listed, points[each].cost),
        )
        ended = overrun(points[found], budgets) == 0
    return SearchResult(
        candidates=tuple(rows),
        best=found,
        failed={candidate_label(candidate): message for candidate, message in failed.items()},
        untried=0
        if ended
        else sum(each not in figures and not ruled_out(each, failed) for each in space.candidates),
        max_minutes=search.max_minutes,
    )


def run_search(
    setting: Setting, folder: Path, *, fresh: bool = False, events: Events, recipe_text: str | None = None
) -> RunMetrics:
    """Search for a recipe in a run folder, going on from what an earlier search there has tried.

    The run ends as that of the best candidate, as if its recipe had been run, and holds two files more: that
    recipe, `best.yaml`, and what was measured, `search.json`.

    Raises:
        InputError, StageError: the model as it is cannot be made or measured. Where a candidate cannot, the
            search goes on, and the answer says so.
    """
    search, space = setting.recipe.search, Space.of(setting.recipe)
    assert search is not None
    deadline = time.monotonic() + 60 * search.max_minutes
    with RunFolder.open(folder, fresh=fresh) as run:
        describe(run, setting.recipe, recipe_text)
        events.emit(RunStarted(setting.recipe.name, str(folder)))
        run.keep_displaced()
        figures, failed = _explore(run, setting, space, deadline, events)
        result = answer(setting.task, space, figures, failed)
        best = space.recipe_of(result.best)
        found = f"best of {len(figures)} that were measured: {candidate_label(result.best)}"
        events.emit(CandidateChosen(candidate_label(result.best), len(figures)))
        describe(run, best, recipe_text)
        best_setting = replace(setting, recipe=best)
        rows = make_rows(run, best_setting, events)
        alone = recipe_yaml(_alone(best, rows), f"Found by {best.name}, {found}.")
        run.write_text("best.yaml", alone)
        if recipe_text is None:  # No recipe was given: this one repeats what was found.
            run.write_text("recipe.yaml", alone)
        return finish(run, rows, best_setting, events, result)


def _alone(best: Recipe, rows: list[CommittedStage]) -> Recipe:
    """Return the best candidate's recipe for a run of its own, with what its stages chose by timing set."""
    made = rows[len(rows) - len(best.stages) :]
    stages = tuple(
        stage_of(stage).settled(stage, row.key.chosen) if row.key.chosen is not None else stage
        for stage, row in zip(best.stages, made, strict=True)
    )
    return best.model_copy(update={"name": f"{best.name[:59]}-best", "stages": stages})


def _explore(
    run: RunFolder, setting: Setting, space: Space, deadline: float, events: Events
) -> tuple[dict[Candidate, Figures], dict[Candidate, str]]:
    """Try candidates until all are tried or the time is over; return their figures, and why others failed."""
    keys, evaluation = candidate_keys(setting, space), setting.recipe.evaluation
    record, all_there_are = Record.read(run.path, evaluation), space.listed or space.candidates
    figures, failed = known_of(keys, record)
    if known := sum(each in figures or each in failed for each in all_there_are):
        events.say(f"{known} of {len(all_there_are)} candidates were tried earlier")
    begun: Candidate | None = None
    while True:
        if () in figures:
            outcomes, left = outcomes_of(figures), deadline - time.monotonic()
            budgets = budgets_of(setting.task, setting.recipe.gates, *baseline_of(figures))
            if space.listed:
                # Candidates in a given order are tried until one keeps the budgets.
                goal = next_listed(all_there_are, outcomes, failed, budgets, left, begun)
            else:
                goal = next_candidate(all_there_are, outcomes, failed, budgets, left)
        else:
            goal = all_there_are[0]
        if goal is None:
            return figures, failed
        candidate = first_untried(goal, figures)
        begun = goal if candidate else None
        events.emit(_started(space, goal, candidate, len(figures) + len(failed)))
        try:
            figures[candidate] = _try(run, setting, space, candidate, events)
        except RootsError as error:
            if not candidate:
                raise
            failed[candidate] = error.message
            events.say(f"left out: {error.message}")
            if not error.transient:
                record.failed[keys[candidate].sha256] = error.message
        else:
            record.tried[keys[candidate].sha256] = figures[candidate]
        run.write_text(NAME, record.text(evaluation))


def _started(space: Space, goal: Candidate, candidate: Candidate, tried: int) -> CandidateStarted:
    """Return the event that a candidate is begun: one that was aimed at, or a beginning of it."""
    if not space.listed:  # Every beginning is a candidate too.
        return CandidateStarted(tried + 1, len(space.candidates), candidate_label(candidate))
    first = None if candidate == goal else candidate_label(candidate)
    return CandidateStarted(space.listed.index(goal) + 1, len(space.listed), candidate_label(goal), first)


def _try(run: RunFolder, setting: Setting, space: Space, candidate: Candidate, events: Events) -> Figures:
    """Make a candidate and measure it, its speed in turns with the baseline's."""
    start = time.perf_counter()
    rows = make_rows(run, replace(setting, recipe=space.recipe_of(candidate)), events)
    baseline, last = pair = rows[0], rows[-1]
    metric, phase = setting.task.metric, setting.task.workload.phase
    quality = quality_of(setting.task, baseline.result, last.result)
    speeds = time_rows(pair, setting, events, "speed beside the baseline")
    return Figures(
        bytes=last.result.metrics.bytes,
        cost=metric.cost(metric.compared(*quality)),
        milliseconds=1000 / speeds[last.path.name][phase][-1].median,
        baseline_bytes=baseline.result.metrics.bytes,
        baseline_milliseconds=1000 / speeds[baseline.path.name][phase][-1].median,
        baseline_quality=quality[0],
        seconds=time.perf_counter() - start,
    )
