"""A recipe as a YAML or JSON file that loads as the same recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent as indent_lines
from types import MappingProxyType
from typing import Any

import yaml

from roots_compress.configs.base import Settings
from roots_compress.configs.recipe.loading import resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.yaml import NUMBERS
from roots_compress.errors import Location, printable

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Python's stand-ins (surrogates) for bytes of a path that are not UTF-8; UTF-8 cannot encode them."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer; it quotes text that `recipe/yaml.py` would read as a number."""


for _form in NUMBERS:
    _Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _form, list("-+.0123456789"))
_FORM: Any = {"allow_unicode": True, "width": 1 << 20, "Dumper": _Dumper}


def recipe_json(recipe: Recipe) -> str:
    """Return a recipe as JSON, which is YAML too, with every default filled in."""
    text = json.dumps(resolved(recipe), indent=2, ensure_ascii=False) + "\n"
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def recipe_yaml(recipe: Recipe, comment: str, notes: Mapping[Location, str] = MappingProxyType({})) -> str:
    """Return a recipe as YAML: only values that differ from the defaults, and paths unchanged.

    Args:
        comment: text at the top.
        notes: text above a key or an entry of a list, by the keys that lead to it.
    """
    return _comment(comment) + _block(_plain(recipe), (), notes)


def _comment(text: str, indent: str = "") -> str:
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in printable(text).splitlines())


def _block(value: Any, place: Location, notes: Mapping[Location, str], indent: str = "") -> str:
    """Return a group of keys, or a list of groups, as YAML with its notes."""
    text = ""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        at = (*place, key)
        text += _comment(notes.get(at, ""), indent)
        if isinstance(value, list):
            text += f"{indent}-{_block(inner, at, notes, indent + '  ')[len(indent) + 1 :]}"
        elif inner and (isinstance(inner, dict) or (isinstance(inner, list) and isinstance(inner[0], dict))):
            text += f"{indent}{key}:\n{_block(inner, at, notes, indent + '  ')}"
        else:
            flow = isinstance(inner, list)  # in one line
            dumped = yaml.dump(inner if flow else {key: inner}, default_flow_style=flow, **_FORM)
            text += indent_lines(f"{key}: {dumped}" if flow else dumped, indent)
    return text


def _plain(value: Any, default: Any = None) -> Any:
    """Return a setting as YAML holds it; for a group, its kind and the values that are not defaults."""
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
