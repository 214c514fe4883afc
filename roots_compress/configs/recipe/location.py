"""How a place in a recipe is named."""

from __future__ import annotations

from roots_compress.errors import Key, Location, recipe_key

__all__ = ["Location", "dotted"]


def dotted(location: Location) -> Key:
    """Return the key at a location from the top of the recipe, such as `stages[1].training.steps`."""
    return recipe_key(*location)


def within_stage(place: Location, key: Key) -> Key:
    """Return a key as what is said of a place names it: of the same stage, without the way to that."""
    stage = place[: next((depth for depth, part in enumerate(place, 1) if isinstance(part, int)), 0)]
    return Key(*key.path[len(stage) :], value=key.value) if key.path[: len(stage)] == stage else key
