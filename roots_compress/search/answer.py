"""The answer of a search, from what was measured: the front, the controls, the best within the budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roots_compress.results import CandidateResult, SearchResult, candidate_label
from roots_compress.search.choice import best, budgets_of, front, overrun
from roots_compress.search.figures import Figures, baseline_of, outcomes_of
from roots_compress.search.space import Candidate, Space
from roots_compress.search.succession import ruled_out
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
