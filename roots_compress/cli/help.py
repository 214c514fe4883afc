"""Verbs with their help: options under headings, those of every verb last, and types in plain words."""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from roots_compress.cli.display.output import current

OUTPUT = "Output"
"""The heading of the options that every verb has."""
FEW = 14
"""As many parameters are one list."""
_TYPE = re.compile(r"<list\[(\w+)\]>|<(\w+) range>")
_BRACES = re.compile(r"^\{(.+)\}")


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


class Verb(TyperCommand):
    """A verb: it has the options that every verb has, and begins the output as they ask."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the verb's own parameters and the common ones."""
        parameters: list[Any] = super().get_params(ctx)
        *own, help_option = parameters
        help_option.rich_help_panel = OUTPUT
        return [*own, *_common_options(), help_option]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line: required arguments bare, as `CKPT`, where Typer has braces."""
        return [_BRACES.sub(r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the parameters under headings: arguments, then what is the verb's own; few need no more."""
        parameters = self.get_params(ctx)
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in parameters:
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            own = parameter.rich_help_panel if len(parameters) > FEW else None
            if (row := record(parameter, ctx)) is not None:
                rows.setdefault(own or usual, []).append(row)
        _write(rows, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write a heading and the examples, one paragraph each."""
        heading, *examples = (self.epilog or "").split("\n\n")
        with formatter.section(heading.removesuffix(":")):
            for example in examples:
                formatter.write_text(example)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        names, around = list[str](), ctx
        while around.parent is not None:
            names.insert(0, around.info_name)
            around = around.parent
        current().begin(" ".join(names), quiet=ctx.params.pop("quiet"), as_json=ctx.params.pop("json"))
        return super().invoke(ctx)


def _write(rows: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for heading, listed in rows.items():
        if listed:
            with formatter.section(heading):
                formatter.write_dl(listed)


@cache
def _common_options() -> list[Any]:
    """Return the options of every verb."""
    alone = typer.Typer(add_completion=False)

    @alone.command()
    def options(
        quiet: Annotated[
            bool,
            typer.Option(
                "--quiet",
                "-q",
                help="Write errors and the result only.",
                show_default=False,
                rich_help_panel=OUTPUT,
            ),
        ] = False,
        json: Annotated[
            bool,
            typer.Option(
                "--json",
                help="Write events and the result as JSON lines to standard output.",
                rich_help_panel=OUTPUT,
            ),
        ] = False,
    ) -> None:
        pass

    return list(typer.main.get_command(alone).params)
