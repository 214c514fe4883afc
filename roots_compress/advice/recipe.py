"""The recipes that suit a checkpoint, a machine and bounds: a chain to start from, and a search."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.candidates import Candidates, Names, may_stay
from roots_compress.advice.facts import Facts
from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.stage import StageSettings
from roots_compress.io.hub_cache import model_name

LARGEST_NAME = 50
"""Characters of a run's name that is made of a checkpoint's."""
FOLDERS = ("checkpoint", "model")
"""Names of folders that say nothing of the model in them."""


def name_of(checkpoint: Path) -> str:
    """Return a run's name made of the name of a checkpoint's file or folder."""
    path = checkpoint.absolute()
    named = path.stem if path.suffix == ".gguf" else model_name(path)
    if named in FOLDERS:
        named = f"{path.parent.name}-{named}" if path.parent.name else named
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", named).strip("-._")[:LARGEST_NAME].strip("-._")
    return cleaned or "model"


def chain_recipe(
    facts: Facts,
    stages: Sequence[StageSettings | Mapping[str, Any]],
    gates: Mapping[str, float],
    settings: Mapping[str, Any],
) -> Recipe:
    """Return a recipe of stages in their order.

    Args:
        facts: the model.
        stages: their settings, as a recipe has them.
        gates: as `Bounds.gates` returns them.
        settings: of the recipe otherwise, such as `model` and `data`.
    """
    given = [
        # What was given of the settings.
        {"kind": each.kind, **each.model_dump(mode="json", exclude_unset=True)}
        if isinstance(each, StageSettings)
        else dict(each)
        for each in stages
    ]
    return _parsed({"stages": given, "gates": dict(gates), **_measured(facts, settings)})


def search_recipe(
    facts: Facts, candidates: Candidates, bounds: Bounds, settings: Mapping[str, Any], *, minutes: float
) -> Recipe:
    """Return a recipe that tries the candidates in their order until one keeps the bounds.

    The model as it is comes first, where it may keep them.
    """
    as_it_is: list[Names] = [()] if may_stay(facts, bounds) else []
    search = {
        "max_minutes": minutes,
        "choices": [each.model_dump(mode="json", exclude_unset=True) for each in candidates.choices.values()],
        "candidates": [list(names) for names in (*as_it_is, *candidates.listed)],
    }
    return _parsed({"search": search, "gates": bounds.gates(facts.task), **_measured(facts, settings)})


def _measured(facts: Facts, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with as many tokens decoded in a timing as a short context has room for."""
    room = max(1, facts.context // 4)
    evaluation = dict(settings.get("evaluation", {}))
    if room < 16:
        evaluation = {"decode_tokens": room, **evaluation}
    return {**settings, **({"evaluation": evaluation} if evaluation else {})}


def _parsed(values: Mapping[str, Any]) -> Recipe:
    return parse_recipe(json.loads(json.dumps(values, default=str)))
