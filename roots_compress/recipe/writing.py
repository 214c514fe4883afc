"""A recipe as a YAML file that loads as the same recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from roots_compress.errors import printable
from roots_compress.recipe.schema import Recipe
from roots_compress.settings import Settings


def recipe_yaml(recipe: Recipe, comment: str) -> str:
    """Return a recipe as YAML: what differs from the defaults, and its paths as it holds them.

    Args:
        recipe: as loaded; its relative paths were made absolute.
        comment: lines that stand above it.
    """
    head = "".join(f"# {line}".rstrip() + "\n" for line in printable(comment).splitlines())
    return head + yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True, width=110)


def _plain(value: Any, default: Any = None) -> Any:
    """Return a setting as YAML holds it; of a group, its kind and what is not as it would be without it."""
    if isinstance(value, Settings):
        fields = type(value).model_fields
        usual = {
            key: getattr(default, key) if isinstance(default, Settings) else field.default
            for key, field in fields.items()
        }
        own = {key: getattr(value, key) for key in fields}
        return {
            key: _plain(own[key], usual[key]) for key in fields if key == "kind" or own[key] != usual[key]
        }
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
