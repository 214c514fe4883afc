"""Runs side by side. What cannot be compared is left out and said."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from roots_compress.errors import InputError
from roots_compress.report.rows import rows_of
from roots_compress.report.text import gain_heading, label, shown
from roots_compress.results import Protocol, RunMetrics
from roots_compress.tasks.registry import task_named


def comparison(runs: Sequence[tuple[str, RunMetrics]]) -> tuple[Table, tuple[str, ...]]:
    """Return a table with every stage of every run, and remarks on what it leaves out.

    Figures of quality are compared only where text, windows and tokenizer agree; those that do not depend on
    the tokenizer, where text and windows do. Speeds are never compared across runs: each is given as a ratio
    to its own run's baseline, which was timed interleaved with it.

    Args:
        runs: a name (its folder, say) and the figures of each run; at least one.

    Raises:
        InputError: the runs are not of one task.
    """
    task = task_named(runs[0][1].task)
    for name, run in runs:
        if run.task != task.name:
            raise InputError(
                f"is a run for the task {run.task}, and {runs[0][0]} is one for {task.name}",
                where=name,
                remedy="Compare runs of one task.",
            )
    first = runs[0][1].protocol
    same_text = all(_same_text(first, run.protocol) for _, run in runs)
    same_tokens = same_text and all(
        run.protocol.tokenizer_sha256 == first.tokenizer_sha256 for _, run in runs
    )
    remarks = []
    if not same_text:
        remarks.append(
            "The runs were evaluated on different text or windows: no quality figure is comparable."
        )
    elif not same_tokens:
        unlike = [metric.heading for metric in task.metrics if not metric.across_tokenizers]
        remarks.append(f"The runs have different tokenizers: {', '.join(unlike)} cannot be compared.")
    gain = gain_heading(task)
    remarks.append(
        f"{gain.capitalize()} is over each run's own baseline; timings of different runs are not comparable."
    )

    table = Table(title="Comparison")
    for heading in ("run", "stage"):
        table.add_column(heading)
    for heading in ("parameters", "MB", *(metric.heading for metric in task.metrics), gain):
        table.add_column(heading, justify="right")
    for name, run in runs:
        for row in rows_of(run):
            figures = row.stage.metrics
            table.add_row(
                shown(name),
                shown(label(row.stage)),
                f"{figures.parameters:,}",
                f"{figures.bytes / 1e6:.2f}",
                *(
                    metric.shown_of(figures.quality)
                    if same_tokens or (same_text and metric.across_tokenizers)
                    else "n/a"
                    for metric in task.metrics
                ),
                f"{row.speedup:.2f}x",
            )
    return table, tuple(remarks)


def _same_text(first: Protocol, other: Protocol) -> bool:
    return first.text_sha256 == other.text_sha256 and (first.block_size, first.windows, first.bos) == (
        other.block_size,
        other.windows,
        other.bos,
    )
