"""`KEY=VALUE` on a command line: any key of a stage, for those that have no option of their own."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roots_compress.configs.recipe.yaml import parse_yaml
from roots_compress.errors import InputError

OPTION = "--set"
_KEY = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)*")
_MAX_KEY_LENGTH = 200
_SHOWN = 60


def with_assignments(
    stage: Mapping[str, Any], assignments: Sequence[str], options: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a stage's settings with those of further keys.

    Args:
        stage: as other options made it; is left as it is.
        assignments: each a key as `docs/recipes.md` has it, dots between groups, and after `=` its value as a
            recipe would write it.
        options: the names of those other options, by the keys they set; for messages.

    Raises:
        InputError: one is of another form, or its key is set already. Whether there is such a key, the schema
            says.
    """
    settings = copy.deepcopy(dict(stage))
    setters = dict(options or {})
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or len(key) > _MAX_KEY_LENGTH or not _KEY.fullmatch(key):
            raise InputError(
                f"{assignment[:_SHOWN]!r} is not of the form KEY=VALUE",
                where=OPTION,
                remedy=f"For example: {OPTION} calibration.windows=96",
            )
        try:
            value = parse_yaml(text, Path(key)).value
        except InputError as error:
            error.where = f"{OPTION} {key}"
            raise
        _assign(settings, key.split("."), value, setters)
        setters[key] = f"{OPTION} {key}"
    return settings


def _assign(settings: dict[str, Any], key: Sequence[str], value: Any, setters: Mapping[str, str]) -> None:
    if list(key) == ["kind"]:
        raise InputError(
            "the verb says which kind of stage it is", where=f"{OPTION} kind", remedy="Leave it out."
        )
    group: Any = settings
    for depth, name in enumerate(key):
        if not isinstance(group, dict):
            raise InputError(
                f"{'.'.join(key[:depth])} is given as {str(group)[:_SHOWN]!r}, and holds no key '{name}'",
                where=f"{OPTION} {'.'.join(key)}",
                remedy="Give the group, or its keys one by one.",
            )
        if depth < len(key) - 1:
            group = group.setdefault(name, {})
    # A verb may have made a group without anything in it.
    if group.get(key[-1], {}) != {}:
        name = ".".join(key)
        by = [setter for other, setter in setters.items() if f"{other}.".startswith(f"{name}.")]
        raise InputError(
            f"{name} is set already{', by ' if by else ''}{' and '.join(by)}",
            where=OPTION,
            remedy="Give every setting once: by its own option or by its key.",
        )
    group[key[-1]] = value
