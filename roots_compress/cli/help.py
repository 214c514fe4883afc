"""How the help of verbs is laid out: options under headings, and types in plain words."""

from __future__ import annotations

import re
import sys
from typing import Any

from typer.core import TyperGroup

OUTPUT = "Output"
"""The heading of the options that every verb has."""
FEW = 14
"""As many parameters are one list."""
_TYPE = re.compile(r"<list\[(\w+)\]>|<(\w+) range>")


class HelpfulGroup(TyperGroup):
    """Verbs that are listed under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs under their headings, each with all that is said of it."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            verb: Any = self.get_command(ctx, name)
            rows.setdefault(verb.rich_help_panel, []).append((name, verb.get_short_help_str(sys.maxsize)))
        _write(rows, formatter)


def record(parameter: Any, context: Any) -> tuple[str, str] | None:
    """Return how a parameter is typed, as `--steps <int>`, and what it does."""
    if (found := parameter.get_help_record(context)) is None:
        return None
    typed, text = found
    return _TYPE.sub(lambda kind: f"<{(kind[1] or kind[2]).lower()}>", typed), text


def format_options(parameters: list[Any], context: Any, formatter: Any) -> None:
    """Write parameters under their headings, in the order in which the headings are met; few need none."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
        own = parameter.rich_help_panel if len(parameters) > FEW else None
        if (row := record(parameter, context)) is not None:
            rows.setdefault(own or usual, []).append(row)
    _write(rows, formatter)


def format_examples(epilog: str, formatter: Any) -> None:
    """Write the end of a verb's help: a heading, and commands, one paragraph each."""
    heading, *examples = epilog.split("\n\n")
    with formatter.section(heading.removesuffix(":")):
        for example in examples:
            formatter.write_text(example)


def _write(rows: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for heading, listed in rows.items():
        with formatter.section(heading):
            formatter.write_dl(listed)
