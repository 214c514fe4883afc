"""The verbs on results: report, compare, doctor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from roots_compress.cli.console import say, stdout
from roots_compress.cli.options import DEFAULT_RUN


class Format(StrEnum):
    """How a report is written."""

    table = "table"
    markdown = "markdown"
    html = "html"
    json = "json"


def report(
    run: Annotated[Path, typer.Argument(metavar="[RUN]", help="A run's folder.")] = DEFAULT_RUN,
    folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The same, as an option.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.table,
) -> None:
    """Show the figures of a run, stage by stage."""
    from roots_compress.run.stages import read_metrics

    metrics = read_metrics(folder or run)
    if form is Format.table:
        from roots_compress.report.rows import rows_of
        from roots_compress.report.text import label, table

        out = stdout()
        out.print(table(metrics))
        for row in rows_of(metrics):
            say(f"{label(row.stage)}: {row.verdict}")
    elif form is Format.markdown:
        from roots_compress.report.text import markdown

        typer.echo(markdown(metrics), nl=False)
    elif form is Format.html:
        from roots_compress.report.html import html

        typer.echo(html(metrics), nl=False)
    else:
        import json

        typer.echo(json.dumps(metrics.to_json(), indent=2))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of two runs or more.")],
) -> None:
    """Put runs side by side; what cannot be compared is left out and said."""
    from roots_compress.report.compare import comparison
    from roots_compress.run.stages import read_metrics

    table, remarks = comparison([(str(run), read_metrics(run)) for run in runs])
    out = stdout()
    out.print(table)
    for remark in remarks:
        say(remark)


def doctor() -> None:
    """Report versions, providers, threads, memory and disk, and what a missing part disables."""
    from roots_compress.report.doctor import examine

    for line in examine():
        say(line)
