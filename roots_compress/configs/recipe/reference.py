"""The reference of every recipe key, made from the schema, so that it cannot drift from it.

`python -m roots_compress.configs.recipe.reference docs/recipes.md` rewrites what is below the marker.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from roots_compress.configs.recipe.schema import STAGES, Recipe

MARKER = (
    "<!-- Made by `python -m roots_compress.configs.recipe.reference docs/recipes.md`; do not edit below. -->"
)


def reference() -> str:
    """Return the Markdown that describes every key: its type, bounds, default and meaning."""
    schema = Recipe.model_json_schema()
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    kinds = {stage.__name__: kind for kind, stage in STAGES.items()}
    titles = {name: f"Stage `{kind}`" for name, kind in kinds.items()}
    titles |= {name: _title(name) for name in _in_order_of_use(schema, definitions) if name not in kinds}
    sections = [_section("The recipe", schema, definitions)]
    sections += [_section(title, definitions[name], definitions) for name, title in titles.items()]
    return "\n".join(sections)


def rewrite(path: Path) -> None:
    """Bring the generated part of a file up to date, keeping the part above the marker.

    Raises:
        ValueError: the file has no marker.
    """
    head, marker, _ = path.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise ValueError(f"{path} has no marker line")
    path.write_text(f"{head}{MARKER}\n\n{reference()}", encoding="utf-8")


def _title(definition: str) -> str:
    """Return the heading of a group of keys: `DistillLossConfig` is `Distill loss`."""
    words = re.findall("[A-Z][a-z]*", definition.removesuffix("Config"))
    return " ".join(words).capitalize()


def _in_order_of_use(schema: dict[str, Any], definitions: dict[str, dict[str, Any]]) -> list[str]:
    """Return the groups' names in the order in which the recipe's own keys name them, then the rest."""
    direct = [_group_of(field) for field in schema["properties"].values()]
    first = [name for name in direct if name in definitions]
    return [*first, *(name for name in definitions if name not in first)]


def _section(title: str, schema: dict[str, Any], definitions: dict[str, dict[str, Any]]) -> str:
    head = [f"## {title}", "", schema["description"], ""]
    table = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in schema["properties"].items():
        default = "required" if key in schema.get("required", []) else _default(field, definitions)
        meaning = " ".join(field["description"].split())
        cells = [f"`{key}`", _value(field), default, meaning]
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*head, *table, ""])


def _default(field: dict[str, Any], definitions: dict[str, dict[str, Any]]) -> str:
    """Return a field's default; of a group, what differs from the defaults in the group's own table."""
    default = field.get("default")
    if default is None:
        return "none"
    if isinstance(default, list) and "discriminator" in field["items"]:
        return ", ".join(f"`{stage['name']}`" for stage in default) or "`[]`"
    if isinstance(default, dict):
        usual = definitions[_group_of(field)]["properties"]
        changed = [
            f"`{key}: {value}`" for key, value in default.items() if usual[key].get("default") != value
        ]
        return "as there" + (f", but {', '.join(changed)}" if changed else "")
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _group_of(field: dict[str, Any]) -> str:
    """Return the name of the group of keys a field holds, or an empty text."""
    options = [field, *field.get("anyOf", [])]
    return next((str(option["$ref"]).rpartition("/")[2] for option in options if "$ref" in option), "")


def _value(field: dict[str, Any]) -> str:
    """Return type and bounds of a field in words."""
    group = _group_of(field)
    if group:
        title = _title(group)
        return f"[{title}](#{title.lower().replace(' ', '-')})"
    if "anyOf" in field:
        return " or ".join(_value(option) for option in field["anyOf"] if option.get("type") != "null")
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if field["type"] == "array":
        if "discriminator" in field["items"]:
            return "list of stages"
        return f"list: {_value(field['items'])}"
    name = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    word = "path" if field.get("format") == "path" else name[field["type"]]
    return ", ".join([word, *_bounds(field)])


def _bounds(field: dict[str, Any]) -> list[str]:
    words = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "maxLength": "at most {} characters",
    }
    return [text.format(field[key]) for key, text in words.items() if key in field]


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
