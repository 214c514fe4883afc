"""A recipe as a YAML or JSON file that loads as the same recipe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from roots_compress.configs.base import Settings
from roots_compress.configs.recipe.loading import resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.errors import printable

_SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python holds a byte of a path by that is not UTF-8; a file of UTF-8 cannot hold it as it is."""


def recipe_json(recipe: Recipe) -> str:
    """Return a recipe as JSON, which is YAML too, with every default filled in."""
    text = json.dumps(resolved(recipe), indent=2, ensure_ascii=False) + "\n"
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def recipe_yaml(recipe: Recipe, comment: str) -> str:
    """Return a recipe as YAML: what differs from the defaults, and its paths as it holds them."""
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
