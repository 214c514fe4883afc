"""What a search would try, and what an earlier one has tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.steps import Step, key_of, keys_of
from roots_compress.report.text import candidate_line
from roots_compress.results import candidate_label
from roots_compress.run.keys import StageKey
from roots_compress.run.stage_cache import StageCache
from roots_compress.search.choice import Point
from roots_compress.search.figures import Figures, outcomes_of
from roots_compress.search.record import Record
from roots_compress.search.space import Candidate, Space
from roots_compress.tasks.base import Task


def candidate_keys(setting: Setting, space: Space) -> dict[Candidate, StageKey]:
    """Return the key of each candidate's last stage, which holds those of the stages before it."""
    *_, (_, key) = keys_of(replace(setting, recipe=space.recipe_of(())))
    keys: dict[Candidate, StageKey] = {(): key}
    for candidate in space.candidates:
        if candidate:
            choice = space.choices[candidate[-1]]
            step = Step(choice.kind, choice.name, choice)
            keys[candidate] = key_of(step, keys[candidate[:-1]].sha256, setting)
    return keys


def known_of(
    keys: Mapping[Candidate, StageKey], record: Record
) -> tuple[dict[Candidate, Figures], dict[Candidate, str]]:
    """Return which candidates were tried earlier: the figures of those that were made, why others failed."""
    figures = {each: record.tried[key.sha256] for each, key in keys.items() if key.sha256 in record.tried}
    failed = {each: record.failed[key.sha256] for each, key in keys.items() if key.sha256 in record.failed}
    return figures, {each: why for each, why in failed.items() if each and each not in figures}


def plan_search(setting: Setting, folder: Path) -> Iterator[str]:
    """Yield what `run_search` may try, one line each; nothing is written."""
    search, space = setting.recipe.search, Space.of(setting.recipe)
    assert search is not None
    keys = candidate_keys(setting, space)
    figures, failed = known_of(keys, Record.read(folder, setting.recipe.evaluation))
    outcomes = outcomes_of(figures) if figures else {}
    all_there_are = space.listed or space.candidates
    known = sum(each in figures or each in failed for each in all_there_are)
    yield f"{len(all_there_are)} candidates, {known} of them tried earlier; {search.max_minutes:g} minutes"
    cached = StageCache(folder)
    for candidate, key in keys.items():
        role = "beginning" if candidate not in all_there_are else space.role_of(candidate)
        name = candidate_label(candidate) + (f" ({role})" if role in ("control", "beginning") else "")
        if candidate in outcomes:
            yield f"{name}: tried: {_line(setting.task, outcomes[candidate].point)}"
        elif candidate in failed:
            yield f"{name}: tried: {failed[candidate]}"
        elif cached.holds(key):
            yield f"{name}: made, to be measured"
        else:
            yield f"{name}: to be tried"


def _line(task: Task[Any], point: Point) -> str:
    return candidate_line(task, point.bytes, point.milliseconds, task.metric.of_cost(point.cost))
