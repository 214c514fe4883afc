"""How a place in a recipe is named."""

from __future__ import annotations

Location = tuple[str | int, ...]
"""The way to a value: keys and list indices, from the top of the recipe."""


def dotted(location: Location) -> str:
    """Return a location as people write it, such as `stages[1].training.steps`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
