"""A run as a table for the terminal, and as Markdown."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from roots_compress.errors import printable
from roots_compress.report.choice import choice_line
from roots_compress.report.rows import Row, rows_of, speeds
from roots_compress.results import CandidateResult, RunMetrics, SearchResult, StageResult, candidate_label

HEADINGS = (
    "stage",
    "parameters",
    "MB",
    "smaller",
    "perplexity",
    "ratio",
    "bits/byte",
    "prefill tok/s",
    "decode tok/s",
    "decode gain",
    "peak MB",
    "seconds",
)
SEARCH_HEADINGS = ("candidate", "MB", "decode ms", "perplexity", "Pareto", "budgets", "")


def cells(row: Row) -> tuple[str, ...]:
    """Return one row's cells, in the order of `HEADINGS`."""
    metrics = row.stage.metrics
    return (
        label(row.stage),
        f"{metrics.parameters:,}",
        f"{metrics.bytes / 1e6:.1f}" if metrics.bytes >= 1e6 else f"{metrics.bytes / 1e6:.3f}",
        f"{row.times_smaller:.2f}x",
        f"{metrics.perplexity:.3f}",
        f"{row.perplexity_ratio:.3f}x",
        f"{metrics.bits_per_byte:.4f}",
        speed_cell(row.stage, "prefill"),
        speed_cell(row.stage, "decode"),
        f"{row.decode_speedup:.2f}x",
        f"{metrics.peak_rss_bytes / 1e6:.0f}",
        f"{row.stage.seconds:.1f}",
    )


def label(stage: StageResult) -> str:
    """Return the stage's name, with its kind where the two differ."""
    return stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"


def speed_cell(stage: StageResult, phase: str) -> str:
    """Return the medians at each context, shortest first: `592 / 711`."""
    return " / ".join(f"{speed.median:.0f}" for speed in speeds(stage, phase))


def table(run: RunMetrics) -> Table:
    """Return the run as a rich table."""
    result = Table(title=shown(run.name), caption=shown(caption(run)), caption_justify="left")
    for index, heading in enumerate(HEADINGS):
        result.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows_of(run):
        result.add_row(*(shown(cell) for cell in cells(row)))
    return result


def tables(run: RunMetrics) -> tuple[Table, ...]:
    """Return the run as a table and, where it was searched for, what was found as another."""
    return (table(run),) if run.search is None else (table(run), search_table(run.search))


def search_table(search: SearchResult) -> Table:
    """Return the candidates of a search, by rising size."""
    result = Table(title="Search", caption=shown(search_caption(search)), caption_justify="left")
    for index, heading in enumerate(SEARCH_HEADINGS):
        result.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for candidate in search.candidates:
        result.add_row(*(shown(cell) for cell in search_cells(candidate, search)))
    return result


def search_cells(candidate: CandidateResult, search: SearchResult) -> tuple[str, ...]:
    """Return one candidate's cells, in the order of `SEARCH_HEADINGS`."""
    marks = {"BEST": candidate.stages == search.best, "control": candidate.role == "control"}
    return (
        candidate_label(candidate.stages),
        f"{candidate.bytes / 1e6:.2f}",
        f"{candidate.decode_ms:.3g}",
        f"{candidate.perplexity_ratio:.3f}x",
        "front" if candidate.on_front else "",
        "kept" if candidate.keeps_budgets else "missed",
        ", ".join(mark for mark, holds in marks.items() if holds),
    )


def search_caption(search: SearchResult) -> str:
    """Say how the candidates were compared, and which are missing."""
    said = (
        "Front: no other candidate is at least as good in all three figures. Each was timed in turns with "
        "the baseline, at the longest context; medians."
    )
    if not any(candidate.keeps_budgets for candidate in search.candidates):
        said += " NO CANDIDATE KEEPS ALL BUDGETS: the best is the one that comes nearest."
    if search.untried:
        said += f" {search.untried} candidates were not tried within {search.max_minutes:g} minutes."
    return said + "".join(f" {name} failed: {why}." for name, why in search.failed.items())


def shown(text: str) -> str:
    """Return what stands for a text from a file in a rich table: neither markup nor control characters."""
    return escape(printable(text))


def caption(run: RunMetrics) -> str:
    """Say how the figures were made."""
    protocol = run.protocol
    opened = "opened with BOS" if protocol.bos else "without BOS"
    contexts = " / ".join(str(context) for context in sorted(protocol.contexts))
    threads = f"{protocol.threads} thread{'s' if protocol.threads > 1 else ''}"
    return (
        f"Perplexity through the ONNX graph: {protocol.windows} windows of {protocol.block_size} tokens, "
        f"{opened}, of {protocol.text}. Speed: batch 1, {threads}, medians of "
        f"{protocol.repeats} interleaved repeats, at contexts of {contexts} tokens. Decode gain: over the "
        "baseline, at the longest of them."
    ) + "".join(f" {label(stage)}: {line}." for stage in run.stages if (line := choice_line(stage)))


def markdown(run: RunMetrics) -> str:
    """Return the run as a Markdown document."""
    lines = [
        f"# {_plain(run.name)}",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *("| " + " | ".join(_plain(cell) for cell in cells(row)) + " |" for row in rows_of(run)),
        "",
        _plain(caption(run)),
        "",
        *(f"- **{_plain(label(row.stage))}**: {_plain(row.verdict)}" for row in rows_of(run)),
    ]
    if run.gates:
        lines += ["", "| gate | limit | value | |", "|---|---|---|---|"]
        lines += [
            f"| {_plain(gate.gate)} | {gate.limit:.4g} | {gate.value:.4g} "
            f"| {'kept' if gate.passed else 'MISSED'} |"
            for gate in run.gates
        ]
    if run.search:
        lines += ["", "## Search", "", "| " + " | ".join(SEARCH_HEADINGS) + " |"]
        lines += ["|" + "---|" * len(SEARCH_HEADINGS)]
        rows = (search_cells(candidate, run.search) for candidate in run.search.candidates)
        lines += ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
        lines += ["", _plain(search_caption(run.search))]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Escape what Markdown or an HTML renderer would read as markup."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_~[]|":
        escaped = escaped.replace(mark, "\\" + mark)
    return " ".join(escaped.split())
