"""`KEY=VALUE` on a command line: any key of a stage, for those that have no option of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roots_compress.errors import InputError
from roots_compress.recipe.yaml import parse_yaml

OPTION = "--set"
_KEY = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)*")


def with_assignments(stage: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a stage's settings with those of further keys.

    Args:
        stage: as other options made it; is left as it is.
        assignments: each a key as `docs/recipes.md` has it, dots between groups, and after `=` its value as a
            recipe would write it.

    Raises:
        InputError: one is of another form, or its key is set already. Whether there is such a key, the schema
            says.
    """
    settings = _copy(stage)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise InputError(
                f"'{assignment}' is not of the form KEY=VALUE",
                where=OPTION,
                remedy=f"For example: {OPTION} calibration.windows=96",
            )
        _assign(settings, key, parse_yaml(text, Path(f"{OPTION} {key}")).value)
    return settings


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    group: Any = settings
    for name in groups:
        group = group.setdefault(name, {}) if isinstance(group, dict) else None
    if not isinstance(group, dict) or last in group:
        raise InputError(
            f"{key} is set already", where=OPTION, remedy="Give every setting once: by an option or a key."
        )
    group[last] = value


def _copy(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
