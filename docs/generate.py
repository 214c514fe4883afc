"""Writes what is made from the code: keys of recipes and of corpora, commands, events, and the JSON schemas.

`make docs` runs it. Tests compare the pages with what it gives, so that they cannot drift from the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import typer
from pydantic import TypeAdapter
from typer.core import TyperGroup

from roots_compress.cli.app import app
from roots_compress.cli.help import record
from roots_compress.configs.base import descriptions
from roots_compress.configs.prepare import PrepareConfig
from roots_compress.configs.recipe.json_schema import DIALECT, schema_text
from roots_compress.configs.recipe.schema import STAGES, Recipe
from roots_compress.events import SCHEMA, ChainPlanned, Event, PlannedStage

PAGES = Path(__file__).parent
RECIPES, COMMANDS, CORPUS, EVENTS = (
    PAGES / f"reference/{name}.md" for name in ("recipes", "commands", "corpus", "events")
)
RECIPE_SCHEMA, EVENT_SCHEMA = (PAGES / f"reference/{name}.schema.json" for name in ("recipe", "event"))
MARKER = "<!-- Made by `make docs`; do not edit below. -->"

HEAD = """\
# Commands

You find here every command with its arguments and options, as its own help has them (`make docs` writes this
page). The stage verbs chain: each appends a stage to the run (`--run`, by default `runs/current`) and goes on
from its newest checkpoint. Arguments in braces are required; those in brackets are optional.

Every verb also takes `--quiet` (`-q`: errors and the result only) and `--json` ([events and the
result](events.md) as JSON lines).

Exit codes: 0 done, 1 a stage or a check of `verify` failed, 2 bad input, 3 a gate or a stage's own budget was
missed, 129, 130 and 143 interrupted by SIGHUP, Ctrl-C or SIGTERM (the same command goes on). See
[what a run holds](run.md#exit-codes).
"""
FEWEST_SHARED = 3
"""A verb with at least so many options of every stage verb lists their names alone."""


def recipes_page() -> str:
    """Return `recipes.md`: what is written by hand, and below the marker every key with its meaning."""
    head, marker, _ = RECIPES.read_text(encoding="utf-8").partition(MARKER)
    assert marker, f"{RECIPES} has no marker line"
    schema = Recipe.model_json_schema()
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    kinds = {stage.__name__: kind for kind, stage in STAGES.items()}
    titles = {name: f"Stage `{kind}`" for name, kind in kinds.items()}
    titles |= {name: _title(name) for name in _in_order_of_use(schema, definitions) if name not in kinds}
    sections = [_section("The recipe", schema, definitions)]
    sections += [_section(title, definitions[name], definitions) for name, title in titles.items()]
    return f"{head}{MARKER}\n\n" + "\n".join(sections)


def commands_page() -> str:
    """Return `commands.md`: every verb with its arguments and options."""
    commands = dict(verbs(typer.main.get_command(app)))
    rows = {name: _rows(name, command) for name, command in commands.items()}
    first, *others = (rows[kind] for kind in STAGES)
    shared = [row for row in first if all(row in each for each in others)]
    sections = [HEAD]
    for name, command in commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        summary = " ".join((command.help or "").split())
        usage = " ".join(["roots-compress", name, *command.collect_usage_pieces(context)])
        sections.append(f"\n## `{name}`\n\n{summary}\n\n    {usage}\n")
        common = [row for row in rows[name] if row in shared]
        if len(common) < FEWEST_SHARED:
            common = []
        if own := [row for row in rows[name] if row not in common]:
            sections.append(_table(own))
        if common:
            names = ", ".join(row.split("`")[1].split()[0] for row in common)
            which = "All" if common == shared else f"`{names.replace(', ', '`, `')}`"
            sections.append(
                f"\n{which} of the [options of every stage verb](#options-of-every-stage-verb).\n"
            )
        _, *examples = (command.epilog or "").split("\n\n")
        sections.append("\nFor example:\n\n" + "".join(f"    {example}\n" for example in examples))
    return "".join([*sections, "\n## Options of every stage verb\n", _table(shared)])


def corpus_page() -> str:
    """Return `corpus.md`: what is written by hand, and below the marker every key of a corpus's settings."""
    head, marker, _ = CORPUS.read_text(encoding="utf-8").partition(MARKER)
    assert marker, f"{CORPUS} has no marker line"
    schema = PrepareConfig.model_json_schema()
    definitions: dict[str, dict[str, Any]] = schema["$defs"]
    sections = [_section("The settings of a corpus", schema, definitions)]
    sections += [
        _section(_title(name), definitions[name], definitions)
        for name in _in_order_of_use(schema, definitions)
    ]
    return f"{head}{MARKER}\n\n" + "\n".join(sections)


def events_page() -> str:
    """Return `events.md`: what is written by hand, and below the marker every event with its fields."""
    head, marker, _ = EVENTS.read_text(encoding="utf-8").partition(MARKER)
    assert marker, f"{EVENTS} has no marker line"
    sections = []
    for event in Event.__subclasses__():
        schema = TypeAdapter(event).json_schema()
        sections.append(f"## {event.label()}\n\n{' '.join((event.__doc__ or '').split())}\n")
        kinds = [(event, schema), *((kind, schema["$defs"][kind.__name__]) for kind in _parts(event))]
        for kind, fields in kinds:
            if kind is not event:
                sections.append(f"Each of them: {' '.join((kind.__doc__ or '').split())}\n")
            told = descriptions(cast(Any, kind))  # mypy takes no class for hashable
            rows = [
                f"| `{key}` | {_json_value(field)} | {_cell(told.get(key, ''))} |\n"
                for key, field in fields["properties"].items()
            ]
            sections.append("| key | value | meaning |\n|---|---|---|\n" + "".join(rows))
    return f"{head}{MARKER}\n\n" + "\n".join(sections)


def event_schema_text() -> str:
    """Return the JSON schema of a line that `--json` writes."""
    kinds, definitions = [], {}
    for event in Event.__subclasses__():
        fields = TypeAdapter(event).json_schema()
        definitions.update(fields.pop("$defs", {}))
        for key, text in descriptions(cast(Any, event)).items():
            fields["properties"][key]["description"] = text
        fields["properties"]["event"] = {"const": event.label()}
        # A field with a default is written all the same.
        kinds.append({**fields, "required": [*fields["properties"]]})
    common = {
        "schema": {"const": SCHEMA},
        "event": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
    }
    document = {
        "$schema": DIALECT,
        "title": "A line of roots-compress --json",
        "type": "object",
        "properties": common,
        "required": [*common],
        "oneOf": kinds,
        "$defs": definitions,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _parts(event: type[Event]) -> list[type[Any]]:
    """Return the classes of which an event holds a list."""
    return [PlannedStage] if event is ChainPlanned else []


def _json_value(field: dict[str, Any]) -> str:
    """Return the type of a field of an event in words."""
    if "anyOf" in field:
        return " or ".join(_json_value(option) for option in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    words = {"integer": "whole number", "boolean": "`true`, `false`", "string": "text", "array": "list"}
    kind = str(field.get("type", "any value"))
    return words.get(kind, kind)


def verbs(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every verb as it is typed, those of a group with the group's name before them."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from verbs(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _rows(name: str, command: Any) -> list[str]:
    """Return a row of the table for each argument and option of a verb."""
    context = command.make_context(name, [], resilient_parsing=True)
    return [_row(parameter, context) for parameter in command.params if parameter.name != "help"]


def _table(rows: list[str]) -> str:
    return "\n| | |\n|---|---|\n" + "".join(rows)


def _row(parameter: Any, context: Any) -> str:
    names, text = record(parameter, context) or (parameter.make_metavar(context), parameter.help or "")
    return f"| `{_cell(names)}` | {_cell(text)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


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
    RECIPES.write_text(recipes_page(), encoding="utf-8")
    COMMANDS.write_text(commands_page(), encoding="utf-8")
    CORPUS.write_text(corpus_page(), encoding="utf-8")
    EVENTS.write_text(events_page(), encoding="utf-8")
    RECIPE_SCHEMA.write_text(schema_text(), encoding="utf-8")
    EVENT_SCHEMA.write_text(event_schema_text(), encoding="utf-8")
