"""The command reference, `docs/commands.md`, written from the commands themselves.

Run `make docs` after changing an option; a test compares the page with the commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

HEAD = """\
# Commands

Written by `make docs` from the commands' own help; do not edit. The stage verbs chain: each appends a stage
to the run (`--run`, by default `runs/current`) and goes on from its newest checkpoint. What stands in braces
must be given, what stands in brackets may be.

Exit codes: 0 done, 1 a stage or a check of `verify` failed, 2 bad input, found before
anything is written or, where only a stage can find it, with the stages before it finished and kept, 3 a gate
or a stage's own budget was missed, 129, 130 and 143 interrupted by SIGHUP, Ctrl-C or SIGTERM (the same
command goes on).
"""


def reference() -> str:
    """Return the Markdown page: every verb with its arguments and options."""
    from roots_compress.cli.app import app

    group: Any = typer.main.get_command(app)
    sections = [HEAD]
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        summary = " ".join((command.help or "").split())
        usage = " ".join(["roots-compress", name, *command.collect_usage_pieces(context)])
        sections.append(f"\n## `{name}`\n\n{summary}\n\n    {usage}\n")
        rows = [_row(parameter, context) for parameter in command.params if parameter.name != "help"]
        if rows:
            sections.append("\n| | |\n|---|---|\n" + "".join(rows))
    return "".join(sections)


def _row(parameter: Any, context: Any) -> str:
    # Click's own help line: `--steps INTEGER`, `Optimizer steps.`
    record = parameter.get_help_record(context)
    names = record[0] if record else parameter.make_metavar(context)
    text = (record[1] if record else "") or getattr(parameter, "help", "") or ""
    return f"| `{_cell(names)}` | {_cell(text)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
