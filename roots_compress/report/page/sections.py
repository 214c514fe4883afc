"""The words and tables of a run's page, from its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from roots_compress.report.charts.svg import cut
from roots_compress.report.rows import quality_of
from roots_compress.report.spread import SPEED_NOISE, gain_of, speeds, speedup_of, time_of
from roots_compress.report.text import megabytes
from roots_compress.report.verdict import factor, numbered
from roots_compress.results import Json, Metrics, RunMetrics, StageResult
from roots_compress.stages.base import Exchange
from roots_compress.stages.registry import stage_of_kind
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Metric, percent

Table = tuple[list[str], list[tuple[str, list[str]]]]
"""Headings, and rows that have a name before their cells."""
INTERVAL = "95% interval"


@dataclass(frozen=True)
class Tile:
    """One figure of the last row, large, and how it compares with the first row's."""

    heading: str
    value: str
    note: str


def tiles(task: Task[Any], run: RunMetrics) -> list[Tile]:
    """Return what a reader looks at first."""
    first, last = run.stages[0], run.stages[-1]
    several = first is not last
    before, after = first.metrics, last.metrics
    size = Tile("Size", f"{megabytes(after.bytes)} MB", "")
    memory = Tile("Peak memory", f"{after.peak_rss_bytes / 1e6:,.0f} MB", "")
    if several:
        size = _noted(
            size, f"{_times(before.bytes / after.bytes, 'smaller', 'larger')} {megabytes(before.bytes)} MB"
        )
        memory = _noted(memory, f"from {before.peak_rss_bytes / 1e6:,.0f} MB")
    found = [size]
    workload = task.workload
    if timed := speeds(last, workload):
        heading = f"{workload.words.capitalize()}, {timed[-1].context:,} tokens of {task.reads}"
        tile = Tile(heading, f"{time_of(last, workload).value:.3g} ms", f"a {workload.unit}")
        gain = speedup_of(first, last, workload).value
        if several and gain == gain:
            before_ms = f"{time_of(first, workload).value:.3g} ms"
            certain = abs(gain_of(first, last, workload) - 1) > SPEED_NOISE
            compared = _times(gain, "faster", "slower") if certain else "within noise of"
            tile = _noted(tile, f"a {workload.unit}, {compared} {before_ms}")
        found.append(tile)
    metric, (was, value) = task.metric, quality_of(task, first, last)
    notes = []
    if several:
        notes.append(f"{_change(metric, metric.compared(was, value))} from {metric.shown(was)}")
    if several:
        bounds = _bounds(after, metric.compared_name, partial(_change, metric))
    else:
        bounds = _bounds(after, metric.name, metric.shown)
    notes += [f"(95%: {bounds})"] if bounds else []
    heading = f"{metric.heading[:1].upper()}{metric.heading[1:]} ({metric.better} is better)"
    return [*found, Tile(heading, metric.shown(value), " ".join(notes)), memory]


def _noted(tile: Tile, note: str) -> Tile:
    return Tile(tile.heading, tile.value, note)


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{factor(ratio)} {better} than" if ratio >= 1 else f"{factor(1 / ratio)} {worse} than"


def quality_table(task: Task[Any], run: RunMetrics) -> Table:
    """Return headings and rows of every metric with its interval; no rows where no row has an interval."""
    if not any(stage.metrics.intervals for stage in run.stages):
        return [], []
    first = task.metric
    columns: list[tuple[str, Callable[[StageResult], str]]] = []
    for metric in task.metrics:
        columns.append((metric.heading, lambda row, of=metric: of.shown_of(row.metrics.quality)))  # type: ignore[misc]
        columns += _interval(run, metric.name, metric.shown)
        if metric is first:
            columns.append(("against the first", lambda row: _change(first, _against(task, run, row))))
            columns += _interval(run, metric.compared_name, partial(_change, first))
    rows = [(numbered(row), [shown(row) for _, shown in columns]) for row in run.stages]
    return [heading for heading, _ in columns], rows


def _against(task: Task[Any], run: RunMetrics, row: StageResult) -> float:
    return task.metric.compared(*quality_of(task, run.stages[0], row))


def _interval(
    run: RunMetrics, name: str, shown: Callable[[float], str]
) -> list[tuple[str, Callable[[StageResult], str]]]:
    """Return the column of a figure's interval, if any row has one."""
    if not any(name in row.metrics.intervals for row in run.stages):
        return []
    return [(INTERVAL, lambda row: _bounds(row.metrics, name, shown))]


def _bounds(metrics: Metrics, name: str, shown: Callable[[float], str]) -> str:
    """Return the interval of a figure in words; nothing where there is none."""
    return " to ".join(map(shown, metrics.intervals.get(name, ())))


def _change(metric: Metric, compared: float) -> str:
    """Return a ratio as `+5.0%`, or a difference as `-0.012`."""
    return percent(compared) if metric.relative else metric.shown_compared(compared)


def agreement(task: Task[Any], run: RunMetrics) -> Table:
    """Return headings and rows of the likeness to the first model; no rows where it was not measured."""
    measured = [stage.metrics.quality for stage in run.stages]
    metrics = [metric for metric in task.agreement_metrics if any(metric.name in each for each in measured)]
    rows = [
        (
            numbered(stage),
            [_likeness(metric, each[metric.name]) if metric.name in each else "" for metric in metrics],
        )
        for stage, each in zip(run.stages, measured, strict=True)
    ]
    return [metric.heading for metric in metrics], rows if metrics else []


def _likeness(metric: Metric, value: float) -> str:
    """Return a divergence, or a share in percent."""
    return f"{value:.2%}" if metric.better == "higher" else f"{value:#.3g}"


@dataclass(frozen=True)
class Written:
    """A prompt, and what each row's graph wrote after it."""

    prompt: str
    texts: list[tuple[str, str, str]]
    """The row, the part that equals the first row's text, and the rest."""


def samples(run: RunMetrics) -> list[Written]:
    """Return the continuations of each prompt side by side."""
    by_prompt: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for stage in run.stages:
        for place, sample in enumerate(stage.samples):  # Held-out prompts may be equal.
            by_prompt.setdefault((place, sample.prompt), []).append((numbered(stage), sample.text))
    return [Written(prompt, _told_apart(texts)) for (_, prompt), texts in by_prompt.items()]


def exchanges(run: RunMetrics) -> list[tuple[str, list[Written]]]:
    """Return for each stage with such notes prompts and answers side by side."""
    found = []
    for stage in run.stages:
        kind = stage_of_kind(stage.kind)
        told: list[Exchange] = [] if kind is None else kind.exchanges(stage.notes)
        written = [
            Written(each.prompt, [(who, "", answer) for who, answer in each.answers.items()]) for each in told
        ]
        if written:
            found.append((numbered(stage), written))
    return found


def _told_apart(texts: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return each text in two parts: the words in which it begins as the first one does, and the rest."""
    # What continues a line begins with a space, which nothing shows beside the prompt.
    texts = [(who, (text[1:] if text[:1] == " " != text[1:2] else text).rstrip()) for who, text in texts]
    first = texts[0][1]
    told = [(texts[0][0], "", first)]
    for who, text in texts[1:]:
        length = next(
            (at for at, (one, other) in enumerate(zip(first, text, strict=False)) if one != other), -1
        )
        if length < 0:
            length = min(len(first), len(text))
        elif length < len(text):
            # Back to the end of a word.
            length = next((at for at in range(length, -1, -1) if text[at].isspace()), -1) + 1
        told.append((who, text[:length], text[length:]))
    return told


def facts(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Return the keys and values of a table, without those that hold tables of their own."""
    return [
        (key.replace("_", " "), _fact(value)) for key, value in values.items() if not isinstance(value, dict)
    ]


def _fact(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def protocol_facts(task: Task[Any], run: RunMetrics) -> list[tuple[str, str]]:
    """Return what the figures depend on beside the model; of hashes the beginning."""
    document = json.loads(json.dumps(asdict(run.protocol)))
    if "decode" not in (workload.phase for workload in task.workloads):
        del document["decode_tokens"]
    told = facts(document)
    return [(key, cut(value, 17) if key.endswith("sha256") else value) for key, value in told]


def versions(run: RunMetrics) -> list[tuple[str, str]]:
    """Return the libraries and their versions."""
    told = run.machine.get("versions")
    return [(key, str(value)) for key, value in told.items()] if isinstance(told, dict) else []


def pretty(value: object) -> str:
    """Return JSON as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)
