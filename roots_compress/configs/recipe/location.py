"""How a place in a recipe is named."""

from __future__ import annotations

import re

from roots_compress.errors import Key

_NAME = "[a-z_][a-z_0-9]*"

Location = tuple[str | int, ...]
"""The way to a value: keys and list indices, from the top of the recipe."""


def dotted(location: Location) -> Key:
    """Return a location as people write it, such as `stages[1].training.steps`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return Key(text.removeprefix("."))


def parse_dotted(text: str) -> Location | None:
    """Return the location that `dotted` wrote; None where the text is no such thing."""
    if not re.fullmatch(rf"{_NAME}(\.{_NAME}|\[[0-9]+\])*", text):
        return None
    return tuple(int(part) if part.isdigit() else part for part in re.findall(rf"{_NAME}|[0-9]+", text))
