"""Runs side by side. What cannot be compared is left out and said."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from roots_compress.report.rows import rows_of
from roots_compress.report.text import label, shown
from roots_compress.results import Protocol, RunMetrics


def comparison(runs: Sequence[tuple[str, RunMetrics]]) -> tuple[Table, tuple[str, ...]]:
    """Return a table with every stage of every run, and remarks on what it leaves out.

    Perplexities stand beside each other only where text, windows and tokenizer agree; bits per byte only
    where the text does. Speeds are never compared across runs: each is given as a ratio to its own run's
    baseline, which was timed interleaved with it.

    Args:
        runs: a name (its folder, say) and the figures of each run; at least one.
    """
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
        remarks.append("The runs have different tokenizers: compare bits per byte, not perplexity.")
    remarks.append(
        "Decode gain is over each run's own baseline; timings of different runs are not comparable."
    )

    table = Table(title="Comparison")
    for heading in ("run", "stage"):
        table.add_column(heading)
    for heading in ("parameters", "MB", "perplexity", "bits/byte", "decode gain"):
        table.add_column(heading, justify="right")
    for name, run in runs:
        for row in rows_of(run):
            metrics = row.stage.metrics
            table.add_row(
                shown(name),
                shown(label(row.stage)),
                f"{metrics.parameters:,}",
                f"{metrics.bytes / 1e6:.2f}",
                f"{metrics.perplexity:.3f}" if same_tokens else "n/a",
                f"{metrics.bits_per_byte:.4f}" if same_text else "n/a",
                f"{row.decode_speedup:.2f}x",
            )
    return table, tuple(remarks)


def _same_text(first: Protocol, other: Protocol) -> bool:
    return first.text_sha256 == other.text_sha256 and (first.block_size, first.windows, first.bos) == (
        other.block_size,
        other.windows,
        other.bos,
    )
