"""A run as CSV: one row a stage, every figure a column, by its name in `metrics.json`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from io import StringIO

from roots_compress.errors import printable
from roots_compress.report.rows import Row, rows_of
from roots_compress.report.spread import speeds
from roots_compress.results import RunMetrics

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet read a text as a formula."""


def run_csv(run: RunMetrics) -> str:
    """Return a run as CSV. A figure that a stage lacks is an empty cell."""
    return csv_of(map(_figures, rows_of(run)))


def csv_of(rows: Iterable[Mapping[str, str | float]]) -> str:
    """Return rows of figures by name as CSV, their names in the order of appearance."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _figures(row: Row) -> dict[str, str | float]:
    stage, task = row.stage, row.task
    figures: dict[str, str | float] = {
        **{"index": stage.index, "kind": stage.kind, "name": stage.name, "seconds": stage.seconds},
        **{"parameters": stage.metrics.parameters, "bytes": stage.metrics.bytes},
        "size_ratio": row.times_smaller,
        **stage.metrics.quality,
        task.metric.compared_name: row.compared_value,
    }
    for workload in task.workloads:
        for speed in speeds(stage, workload):
            name = f"{workload.figure}_{speed.context}"
            figures |= {name: speed.median, f"{name}_low": speed.low, f"{name}_high": speed.high}
        figures[f"{workload.phase}_speedup"] = row.speedup_in(workload)
    return {**figures, "peak_rss_bytes": stage.metrics.peak_rss_bytes, "onnx": stage.onnx}


def _cell(value: str | float) -> str | float:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text
