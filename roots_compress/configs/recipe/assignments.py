"""Keys that a command line sets, by their own options or by `--set KEY=VALUE`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roots_compress.errors import InputError, Location

OPTION = "--set"
_KEY = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)*")
_MAX_KEY_LENGTH = 200
_SHOWN = 60


@dataclass(frozen=True)
class Assignment:
    """A value for a key."""

    option: str
    """As typed: `--ratio`, or `--set ratio`."""
    key: Location
    """The keys that lead to it, from the stage or the recipe."""
    value: Any
    """The value, as a recipe holds it."""


def read_assignment(text: str) -> Assignment:
    """Read `KEY=VALUE`: a key of a stage (docs/reference/recipes.md), dots between groups, and its value.

    Raises:
        InputError: it has another form. The schema checks later whether the key exists.
    """
    key, equals, value = text.partition("=")
    if not equals or len(key) > _MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise InputError(
            f"{text[:_SHOWN]!r} is not of the form KEY=VALUE",
            where=OPTION,
            remedy=f"For example: {OPTION} calibration.windows=96",
        )
    option = f"{OPTION} {key}"
    if key == "kind":
        raise InputError("the verb decides the kind of the stage", where=option, remedy="Leave it out.")
    from roots_compress.configs.recipe.yaml import parse_yaml  # Late, so that help does not wait for it.

    try:
        return Assignment(option, tuple(key.split(".")), parse_yaml(value, Path(key)).value)
    except InputError as error:
        error.where = option
        raise


def settings_of(assignments: Iterable[Assignment]) -> dict[str, Any]:
    """Return the assigned values, in groups of keys as in a recipe.

    Raises:
        InputError: a key is set twice, or a key is set inside something that is not a group.
    """
    settings: dict[str, Any] = {}
    earlier: list[Assignment] = []
    for each in assignments:
        *groups, last = map(str, each.key)
        inmost = settings
        for depth, group in enumerate(groups):
            inmost = inmost.setdefault(group, {})
            if not isinstance(inmost, dict):
                given, name = ".".join(groups[: depth + 1]), [*groups, last][depth + 1]
                raise InputError(
                    f"{given} is given as {str(inmost)[:_SHOWN]!r}, and holds no key '{name}'",
                    where=each.option,
                    remedy="Give the group, or its keys one by one.",
                )
        if last in inmost:
            by = [other.option for other in earlier if other.key[: len(each.key)] == each.key]
            raise InputError(
                f"{'.'.join([*groups, last])} is set already{', by ' if by else ''}{' and '.join(by)}",
                where=each.option,
                remedy="Give every setting once: by its own option or by its key.",
            )
        inmost[last] = each.value
        earlier.append(each)
    return settings
