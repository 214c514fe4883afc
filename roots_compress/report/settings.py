"""In which settings recipes differ, by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 60
"""Characters of a value that are shown."""
STAGES, NAME = "stages", "name"
GROUP = "{...}"


@dataclass(frozen=True)
class SettingDifference:
    """A setting that is not the same in all recipes."""

    key: str
    """From the top of the recipe, a stage by its name: `stages[prune].ratio`."""
    values: tuple[str, ...]
    """As JSON, one for each recipe; empty where the setting is not there, or null. In a comparison
    `n/a` stands for a run whose recipe is not known."""


def differing_settings(recipes: Sequence[Mapping[str, Any]]) -> tuple[SettingDifference, ...]:
    """Return the settings in which recipes differ, their names left out.

    Stages are matched by their names. Of one that not all recipes have, no setting is listed: that shows in
    their order, which is listed as `stages`. A group that some do not have is listed as one, with what it
    sets; its settings are compared among the others.
    """
    flat: list[dict[str, str]] = []
    told: list[dict[str, str]] = []
    for recipe in recipes:
        rows = list(_flatten({key: each for key, each in recipe.items() if key != NAME}))
        flat.append({key: text for key, text, is_group in rows if not is_group})
        told.append({key: text for key, text, is_group in rows if is_group})
    shared = [set(_stages(recipe)) for recipe in recipes]
    everywhere = set.intersection(*shared) if shared else set()
    keys = dict.fromkeys(key for each in flat for key in each)
    groups = {key for key in keys if any(inner.startswith(f"{key}.") for inner in keys)}
    for each in flat:
        each |= {key: GROUP for key in groups if any(inner.startswith(f"{key}.") for inner in each)}
    found = []
    if len({tuple(_stages(recipe)) for recipe in recipes}) > 1:
        found.append(SettingDifference(STAGES, tuple(" > ".join(_stages(recipe)) for recipe in recipes)))
    for key in keys:
        stage = key.removeprefix(f"{STAGES}[").partition("]")[0] if key.startswith(f"{STAGES}[") else None
        values = tuple("" if each.get(key) in (None, "null") else each[key] for each in flat)
        group = next((each for each in groups if key.startswith(f"{each}.")), "")
        among = [value for value, each in zip(values, flat, strict=True) if each.get(group) != "null"]
        if len(set(among)) > 1 and (stage is None or stage in everywhere):
            sets = zip(values, told, strict=True)
            shown = (texts[key] if value == GROUP else value for value, texts in sets)
            found.append(SettingDifference(key, tuple(shown)))
    return tuple(found)


def _stages(recipe: Mapping[str, Any]) -> list[str]:
    stages = recipe.get(STAGES)
    rows = stages if isinstance(stages, list) else []
    return [str(each[NAME]) for each in rows if isinstance(each, dict) and NAME in each]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """Yield each setting with its value as JSON, and each group with what it sets."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{prefix}{key}", _cut(_without_nulls(item)), True
            yield from _flatten(item, f"{prefix}{key}.")
        elif (
            isinstance(item, list) and item and all(isinstance(each, dict) and NAME in each for each in item)
        ):
            for each in item:
                inner = {name: inside for name, inside in each.items() if name != NAME}
                yield from _flatten(inner, f"{prefix}{key}[{each[NAME]}].")
        else:
            yield f"{prefix}{key}", _cut(item), False


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nulls(each) for key, each in value.items() if each is not None}


def _cut(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
