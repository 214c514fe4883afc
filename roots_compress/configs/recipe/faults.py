"""The faults of a recipe in plain words: pydantic's errors, each at its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import zip_longest
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from roots_compress.configs.base import Settings, alternatives, choices_of, inner_groups
from roots_compress.configs.gates import GatesConfig
from roots_compress.configs.recipe.schema import CHOICES, STAGES, Recipe
from roots_compress.errors import Key, Location, did_you_mean, with_keys

_WANTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "model_type": "must be a group of keys",
    "model_attributes_type": "must be a group of keys",
    "dict_type": "must be a group of keys",
    "finite_number": "must be a finite number",
}
_BOUNDS = {
    "greater_than": ("must be above {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be below {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
}


def faults_of(
    error: ValidationError, values: Mapping[str, Any], top: type[Settings] = Recipe
) -> Iterator[tuple[Location, str]]:
    """Yield place and description of each fault in values that were read as settings `top`."""
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # There are enough items; their own faults are reported elsewhere.
        location = detail["loc"]
        if top is Recipe and detail["type"] != "recipe":
            location = _without_kind(location)
        if detail["type"] == "union_tag_invalid":
            kind, known = str(detail["ctx"]["tag"]), list(STAGES) if location[0] == "stages" else CHOICES
            choice = ", ".join(known)
            yield (*location, "kind"), f"'{kind}' is not one of {choice}{did_you_mean(kind, known)}"
        elif detail["type"] in ("recipe", "setting"):
            group = location[: len(location) - detail["ctx"]["depth"]]
            yield location, with_keys(detail["ctx"]["text"], partial(Key.within, group=group))
        elif detail["type"] == "union_tag_not_found":
            yield location, f"must have a 'kind', one of {', '.join(STAGES)}"
        else:
            yield location, _describe(detail, location, values, top)


def _without_kind(loc: Location) -> Location:
    """Drop the stage's kind, which pydantic puts after the index of a stage."""
    length = _length_to_stage(loc)
    return loc[:length] + loc[length + 1 :] if length else loc


def _length_to_stage(location: Location) -> int:
    """Return how many parts of a location lead to a stage; 0 if it is in none."""
    if location[:1] == ("stages",):
        return 2
    return 3 if location[:2] == ("search", "choices") else 0


def _describe(
    detail: ErrorDetails, location: Location, values: Mapping[str, Any], top: type[Settings]
) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return f"unknown key{_nearest_key(location, values, top)}"
    if kind == "missing":
        return "is required"
    if kind in _WANTED:
        return f"{_WANTED[kind]}, not {_shown(value)}"
    if kind in _BOUNDS:
        text, bound = _BOUNDS[kind]
        return f"{text.format(context[bound])}, not {_shown(value)}"
    if kind == "too_short":
        return f"must have at least {context['min_length']}, not {len(value)}"
    if kind == "too_long":
        return f"must have at most {context['max_length']}, not {len(value)}"
    if kind == "literal_error":
        group = _group_at(location[:-1], values, top)
        *others, last = choices_of(group.model_fields[str(location[-1])].annotation)
        choice = f"{', '.join(map(repr, others))} or {last!r}" if others else repr(last)
        near = did_you_mean(str(value), [str(each) for each in (*others, last)])
        return f"must be {choice}, not {_shown(value)}{near}"
    if kind == "string_pattern_mismatch":
        return (
            "must begin with a letter or digit, hold only letters, digits, '.', '_' and '-', "
            f"and not end in '.'; it is {_shown(value)}"
        )
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {_shown(value)}"


def _shown(value: object) -> str:
    """Return a value with its type in the words of YAML."""
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return f"text {value[:60]!r}"
        case list() | tuple():
            return "a list"
        case dict():
            return "a group of keys"
        case _:
            return repr(value)[:60]


def _nearest_key(location: Location, values: Mapping[str, Any], top: type[Settings]) -> str:
    """Return where an unknown key may belong."""
    key = str(location[-1])
    group = _group_at(location[:-1], values, top)
    deeper = _deeper(key, group)
    if deeper:
        return f" (did you mean '{deeper}'?)"
    if top is Recipe and key in GatesConfig.model_fields:
        return " (bounds belong under 'gates', at the top of the recipe)"
    if top is Recipe and key in Recipe.model_fields:
        return f" ('{key}' belongs at the top of the recipe)"
    near = did_you_mean(key, list(group.model_fields))
    if near:
        return near
    return f"; the keys here are {', '.join(group.model_fields)}"


def _deeper(key: str, group: type[Settings]) -> str | None:
    """Return where inside a group's own groups a key is known."""
    for name, inner in inner_groups(group).items():
        found = key if key in inner.model_fields else _deeper(key, inner)
        if found:
            return f"{name}.{found}"
    return None


def _group_at(location: Location, values: Mapping[str, Any], top: type[Settings]) -> type[Settings]:
    """Return the settings that a location inside the top ones holds."""
    group = top
    length = _length_to_stage(location) if top is Recipe else 0
    if length:
        stage: Any = values
        for part in location[:length]:
            stage = stage[part]
        group, location = STAGES[stage["kind"]], location[length:]
    for part, index in zip_longest(location, location[1:]):
        if isinstance(index, int):
            group = get_args(alternatives(group.model_fields[str(part)].annotation)[0])[0]
        elif isinstance(part, str):
            group = inner_groups(group)[part]
    return group
