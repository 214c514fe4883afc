"""A comparison of runs as tables for the terminal, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Iterator

from roots_compress.report.compare import MISSING, Comparison
from roots_compress.report.differences import Axis, ComparedRow
from roots_compress.report.markdown import folded, markdown_table, plain
from roots_compress.report.spreadsheet import csv_of
from roots_compress.report.table import Table, table_of


def tables(compared: Comparison) -> tuple[Table, ...]:
    """Return the stages of all runs, how the last ones differ, and the settings that do."""
    headings, differences = difference_table(compared)
    settings, values = setting_table(compared)
    found = (
        table_of("Comparison", stage_headings(compared), stage_rows(compared), names=2),
        table_of("Differences of the last stages", headings, differences, names=len(headings) - 2),
        # Their values are compared side by side, and are texts: they fold.
        table_of("Settings that differ", settings, values, names=len(settings)),
    )
    return tuple(table for table in found if table.rows)


def lines(compared: Comparison) -> tuple[str, ...]:
    """Return what is said below the tables: which run is better for what, and what does not compare."""
    return compared.sentences + compared.remarks


def markdown(compared: Comparison) -> str:
    """Return a comparison as Markdown, what decides first and every stage below a fold."""
    headings, rows = difference_table(compared)
    text = ["# Comparison", "", *(f"- {plain(sentence)}" for sentence in compared.sentences), ""]
    text += [*markdown_table(headings, rows), ""]
    titles, settings = setting_table(compared)
    if settings:
        text += ["Settings that differ:", "", *markdown_table(titles, settings), ""]
    text += [*(plain(remark) + "\n" for remark in compared.remarks)]
    stages = markdown_table(stage_headings(compared), stage_rows(compared))
    return "\n".join([*text, *folded("Every stage", stages)])


def csv(compared: Comparison) -> str:
    """Return a comparison as CSV: one row a stage, each figure with its interval where that is known."""
    return csv_of(map(_flat, compared.rows))


def _flat(row: ComparedRow) -> dict[str, str | float]:
    flat: dict[str, str | float] = {"run": row.run, "stage": row.stage, "parameters": row.parameters}
    for key, figure in row.figures.items():
        flat[key] = figure.value
        if figure.interval is not None:
            flat[f"{key}_low"], flat[f"{key}_high"] = figure.interval
    return flat


def stage_headings(compared: Comparison) -> list[str]:
    """Return the headings of the table of all stages."""
    return ["run", "stage", "parameters", *(axis.heading for axis in _columns(compared))]


def _columns(compared: Comparison) -> list[Axis]:
    """Return the figures of the table of all stages; those of agreement are among the differences alone."""
    return [axis for axis in compared.axes if axis.kind != "agreement"]


def stage_rows(compared: Comparison) -> Iterator[list[str]]:
    """Yield its rows."""
    for row in compared.rows:
        cells = (
            axis.shown(row.figures[axis.key].value) if axis.key in row.figures else MISSING
            for axis in _columns(compared)
        )
        yield [row.run, row.stage, f"{row.parameters:,}", *cells]


def difference_table(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of how the last stages differ from the first run's; names two runs once."""
    headings = {axis.key: axis.heading for axis in compared.axes}
    rows = [[each.run, headings[each.key], each.change, each.verdict] for each in compared.differences]
    first, *others = compared.runs
    if len(others) == 1:
        return ["figure", f"{others[0]} against {first}", "verdict"], [row[1:] for row in rows]
    return ["run", "figure", f"against {first}", "verdict"], rows


def setting_table(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the settings that differ."""
    rows = [[each.key, *(value or "not set" for value in each.values)] for each in compared.settings]
    return ["setting", *compared.runs], rows
