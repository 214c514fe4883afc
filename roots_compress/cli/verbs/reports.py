"""The verbs on results: report, compare, verify, doctor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roots_compress.cli.display.console import rendered, say, stdout, write
from roots_compress.cli.display.output import give, tell
from roots_compress.cli.options import DEFAULT_RUN
from roots_compress.cli.outcome import check_output
from roots_compress.errors import InputError, RootsError, printable

if TYPE_CHECKING:
    from roots_compress.report.table import Table
    from roots_compress.results import RunMetrics


class Format(StrEnum):
    """How a report is written."""

    table = "table"
    markdown = "markdown"
    html = "html"
    json = "json"
    csv = "csv"
    junit = "junit"


class ComparisonFormat(StrEnum):
    """How a comparison is written."""

    table = "table"
    markdown = "markdown"
    html = "html"
    json = "json"
    csv = "csv"


OutputOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Write it to a file, and not to standard output."),
]


def report(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help=f"A run's folder. Default: {DEFAULT_RUN}.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="The same, as an option.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.table,
    output: OutputOption = None,
) -> None:
    """Show the figures of a run, stage by stage."""
    from roots_compress.report.reading import read_figures

    check_output(output)
    if run and folder:
        raise InputError("a run is named twice", where="--run", remedy="Name it once, with --run or without.")
    where = run or folder or DEFAULT_RUN
    if form is Format.junit:
        from roots_compress.pipeline.unfinished import unfinished_junit

        if (unfinished := unfinished_junit(where)) is not None:
            give({"junit": unfinished})
            _deliver(unfinished, output)
            return
    metrics = read_figures(where)
    give(metrics.to_json())
    earlier = [] if metrics.unfinished is None else [_sentence(metrics)]
    if form is Format.table:
        from roots_compress.report.rows import rows_of
        from roots_compress.report.text import gate_line, label, tables

        verdicts = [f"{label(row.stage)}: {row.verdict}" for row in rows_of(metrics)]
        _show(tables(metrics), [*earlier, *verdicts, *map(gate_line, metrics.gates)], output)
    else:
        for sentence in earlier if form is Format.csv else ():  # Its rows have no place for it.
            tell(sentence)
        _deliver(_written(where, metrics, form), output)


def _sentence(metrics: RunMetrics) -> str:
    """Return the decision that a run's figures support."""
    from roots_compress.report.verdict import verdict

    return verdict(metrics).sentence


def _written(run: Path, metrics: RunMetrics, form: Format) -> str:
    """Return a run's report in a form that is text."""
    match form:
        case Format.markdown:
            from roots_compress.report.markdown import markdown

            return markdown(metrics)
        case Format.html:
            from roots_compress.report.html import html
            from roots_compress.report.reading import read_recipe

            return html(metrics, recipe=read_recipe(run))
        case Format.csv:
            from roots_compress.report.spreadsheet import run_csv

            return run_csv(metrics)
        case Format.junit:
            from roots_compress.report.junit import junit

            return junit(metrics)
        case _:
            return json.dumps(metrics.to_json(), indent=2) + "\n"


def _show(tables: Iterable[Table], lines: Iterable[str], output: Path | None) -> None:
    """Print tables and lines, or write them to a file as a pipe would get them."""
    if output is None:
        stdout().print(*tables)
        for line in lines:
            say(line)
        return
    text = rendered(tables) + "".join(f"{printable(line)}\n" for line in lines)
    _deliver(text, output)


def _deliver(text: str, output: Path | None) -> None:
    if output is None:
        write(text)
        return
    from roots_compress.run.outputs import write_output

    write_output(output, text)
    tell(f"wrote {output}")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of two runs or more.")],
    form: Annotated[
        ComparisonFormat, typer.Option("--format", help="How to show it.")
    ] = ComparisonFormat.table,
    output: OutputOption = None,
) -> None:
    """Compare runs: which figures differ by more than noise, and which settings differ."""
    from roots_compress.report.compare import comparison
    from roots_compress.report.reading import read_figures, read_settings, short_names

    check_output(output)
    if len(runs) < 2:
        raise InputError("one run alone cannot be compared", where=runs[0], remedy="Name another run too.")
    figures = [read_figures(run) for run in runs]
    settings = [read_settings(run) for run in runs]
    compared = comparison([*zip(short_names(runs), figures, strict=True)], settings)
    give(compared.to_json())
    match form:
        case ComparisonFormat.table:
            from roots_compress.report.compare_text import lines, tables

            _show(tables(compared), lines(compared), output)
        case ComparisonFormat.markdown:
            from roots_compress.report.compare_text import markdown

            _deliver(markdown(compared), output)
        case ComparisonFormat.html:
            from roots_compress.report.html import comparison_html

            _deliver(comparison_html(compared, figures), output)
        case ComparisonFormat.csv:
            from roots_compress.report.compare_text import csv

            _deliver(csv(compared), output)
        case _:
            _deliver(json.dumps(compared.to_json(), indent=2, allow_nan=False) + "\n", output)


def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A run's folder, a stage of it, or a folder with an ONNX graph."),
    ],
) -> None:
    """Re-check hashes, figures, and each graph against its checkpoint; exit code 1 where a check fails."""
    from roots_compress.pipeline.verify import verify_folder

    findings = []
    for finding in verify_folder(folder):
        findings.append(finding)
        if not finding.faults:
            say(f"  {finding.subject}: {finding.checked}")
        for fault in finding.faults:
            say(f"! {finding.subject}: {fault}")
    give([asdict(finding) for finding in findings])
    faulty = sum(bool(finding.faults) for finding in findings)
    if faulty:
        raise RootsError(
            f"{faulty} part{'s are' if faulty > 1 else ' is'} not as committed",
            where=folder,
            remedy="Run the recipe again: damaged stages are made again, the others are reused. "
            "A graph that stands alone has to be exported again.",
        )
    say(f"{folder}: everything is as it was written")


def doctor() -> None:
    """Report versions, providers, threads, memory and disk, and what a missing part disables."""
    from roots_compress.report.doctor import examine

    findings = [*examine()]
    give([asdict(finding) for finding in findings])
    for finding in findings:
        say(str(finding))
    attention = sum(finding.needs_attention for finding in findings)
    say(f"{attention} of these need attention: they begin with !" if attention else "Nothing is missing.")
