"""How the dataclasses of figures are read from JSON, where some groups of figures are keys of a row's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

GROUPS = ("quality", "timings", "figures")
"""Fields whose entries are keys of a row's own in JSON."""

_Read = TypeVar("_Read")


def read_strictly(kind: type[_Read], document: object) -> _Read:
    """Return a dataclass of figures read from JSON.

    Raises:
        ValueError: it cannot be; the message begins with the key that is at fault.
    """
    try:
        # As text: strict reading takes lists for tuples, and objects for dataclasses, from JSON only.
        read: _Read = _adapter(cast(Hashable, kind)).validate_json(json.dumps(document))
        return read
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors(include_url=False)[0]
        parts = [part for part in first["loc"] if part not in ("metrics", *GROUPS)]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        raise ValueError(f"{place}: {first['msg']}") from None


def each_of(rows: object, change: Callable[[object], object]) -> object:
    """Return a list with each of its rows changed; anything else as it is, to be refused later."""
    return [change(row) for row in rows] if isinstance(rows, list) else rows


def grouped_row(row: object, kind: type[Any], metrics: type[Any], *, timed: tuple[str, ...]) -> object:
    """Return a row of `metrics.json` with its figures in the groups of its metrics.

    Args:
        timed: what names of timings end with.
    """
    if not isinstance(row, dict):
        return row
    own = {"schema", *_names(kind)}
    found: dict[str, Any] = {"quality": {}, "timings": {}}
    for key, value in row.items():
        if key.endswith(timed):
            found["timings"][key] = value
        elif key in _names(metrics) - {*GROUPS}:
            found[key] = value
        elif key not in own and _is_number(value):
            found["quality"][key] = value
    return {**{key: value for key, value in row.items() if key in own}, "metrics": found}


def grouped_candidate(row: object, kind: type[Any]) -> object:
    """Return a candidate of `metrics.json` with its figures in a group; `kind` is the class of candidates."""
    if not isinstance(row, dict):
        return row
    own = _names(kind)
    return {**row, "figures": {key: each for key, each in row.items() if key not in own and _is_number(each)}}


def _names(kind: type[Any]) -> set[str]:
    return {each.name for each in fields(kind)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
