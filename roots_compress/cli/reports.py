"""The verbs on results: report, compare, verify, doctor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from roots_compress.cli.console import say, stdout, write
from roots_compress.cli.options import DEFAULT_RUN
from roots_compress.errors import InputError, RootsError


class Format(StrEnum):
    """How a report is written."""

    table = "table"
    markdown = "markdown"
    html = "html"
    json = "json"


def report(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help=f"A run's folder. Default: {DEFAULT_RUN}.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The same, as an option.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.table,
) -> None:
    """Show the figures of a run, stage by stage."""
    from roots_compress.report.reading import read_figures

    if run and folder:
        raise InputError("a run is named twice", where="--run", remedy="Name it once, with --run or without.")
    metrics = read_figures(run or folder or DEFAULT_RUN)
    if form is Format.table:
        from roots_compress.report.rows import rows_of
        from roots_compress.report.text import label, tables

        out = stdout()
        out.print(*tables(metrics))
        for row in rows_of(metrics):
            say(f"{label(row.stage)}: {row.verdict}")
    elif form is Format.markdown:
        from roots_compress.report.text import markdown

        write(markdown(metrics))
    elif form is Format.html:
        from roots_compress.report.html import html

        write(html(metrics))
    else:
        import json

        write(json.dumps(metrics.to_json(), indent=2) + "\n")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of two runs or more.")],
) -> None:
    """Put runs side by side; what cannot be compared is left out and said."""
    from roots_compress.report.compare import comparison
    from roots_compress.report.reading import read_figures

    if len(runs) < 2:
        raise InputError("there is nothing to compare it with", where=runs[0], remedy="Name another run too.")
    table, remarks = comparison([(str(run), read_figures(run)) for run in runs])
    out = stdout()
    out.print(table)
    for remark in remarks:
        say(remark)


def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A run's folder, a stage of it, or a folder with an ONNX graph."),
    ],
) -> None:
    """Re-check hashes, figures, and each graph against its checkpoint; exit code 1 where a check fails."""
    from roots_compress.pipeline.verify import verify_folder

    faulty = 0
    for finding in verify_folder(folder):
        if not finding.faults:
            say(f"  {finding.subject}: {finding.checked}")
        for fault in finding.faults:
            say(f"! {finding.subject}: {fault}")
        faulty += bool(finding.faults)
    if faulty:
        raise RootsError(
            f"{faulty} part{'s are' if faulty > 1 else ' is'} not as committed",
            where=folder,
            remedy="Run the recipe again: damaged stages are made again, the others are reused. "
            "A graph that stands alone has to be exported again.",
        )


def doctor() -> None:
    """Report versions, providers, threads, memory and disk, and what a missing part disables."""
    from roots_compress.report.doctor import examine

    for line in examine():
        say(line)
