"""The words and tables of a run's page, from its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from roots_compress.report.charts.svg import cut
from roots_compress.report.rows import milliseconds, quality_of, speeds, speedup
from roots_compress.report.text import megabytes
from roots_compress.report.verdict import factor, numbered
from roots_compress.results import Json, Metrics, RunMetrics
from roots_compress.stages.base import Exchange
from roots_compress.stages.registry import stage_of_kind
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures import Metric

AGREEMENT = {
    "kl_mean": "KL, mean",
    "kl_median": "KL, median",
    "kl_p99": "KL, 99th percentile",
    "same_top": "same first token",
}
"""Figures of agreement with the run's first model, and their headings."""


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
        heading = f"{workload.words.capitalize()}, context {timed[-1].context:,}"
        tile = Tile(heading, f"{milliseconds(last, workload):.3g} ms a {workload.unit}", "")
        gain = speedup(first, last, workload)
        if several and gain == gain:
            tile = _noted(tile, f"{_times(gain, 'faster', 'slower')} {milliseconds(first, workload):.3g} ms")
        found.append(tile)
    metric = task.metric
    values = quality_of(task, first, last)
    note = (
        f"{metric.change(*values).removeprefix(metric.heading).strip()} from {metric.shown(values[0])}"
        if several
        else ""
    )
    if bounds := after.intervals.get(metric.name):
        note = "; ".join(filter(None, (note, f"95% {_bounds(metric, bounds)}")))
    heading = metric.heading[:1].upper() + metric.heading[1:]
    return [*found, Tile(heading, metric.shown(values[1]), note), memory]


def _noted(tile: Tile, note: str) -> Tile:
    return Tile(tile.heading, tile.value, note)


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{factor(ratio)} {better} than" if ratio >= 1 else f"{factor(1 / ratio)} {worse} than"


def _bounds(metric: Metric, bounds: tuple[float, float]) -> str:
    return f"{metric.shown(bounds[0])} to {metric.shown(bounds[1])}"


def quality_table(task: Task[Any], run: RunMetrics) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return headings and rows of every metric with its interval; no rows where no row has an interval."""
    if not any(stage.metrics.intervals for stage in run.stages):
        return [], []
    headings: list[str] = []
    for metric in task.metrics:
        headings += [metric.heading, "95% interval"]
    rows = []
    for stage in run.stages:
        cells = []
        for metric in task.metrics:
            bounds = stage.metrics.intervals.get(metric.name)
            cells += [metric.shown_of(stage.metrics.quality), _bounds(metric, bounds) if bounds else ""]
        rows.append((numbered(stage), cells))
    return headings, rows


def agreement(run: RunMetrics) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return headings and rows of the agreement with the first model; no rows where it was not measured."""
    keys = [key for key in AGREEMENT if any(key in stage.metrics.quality for stage in run.stages)]
    rows = [
        (numbered(stage), [_agreed(key, stage.metrics) for key in keys])
        for stage in run.stages
        if any(key in stage.metrics.quality for key in keys)
    ]
    return [AGREEMENT[key] for key in keys], rows


def _agreed(key: str, metrics: Metrics) -> str:
    value = metrics.quality.get(key)
    if value is None:
        return ""
    return f"{value:.2%}" if key == "same_top" else f"{value:.3g}"


@dataclass(frozen=True)
class Written:
    """A prompt, and what each row's graph wrote after it."""

    prompt: str
    texts: list[tuple[str, str, str]]
    """The row, the part that equals the first row's text, and the rest."""


def samples(run: RunMetrics) -> list[Written]:
    """Return the continuations of each prompt side by side."""
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    for stage in run.stages:
        for sample in stage.samples:
            by_prompt.setdefault(sample.prompt, []).append((numbered(stage), sample.text))
    return [Written(prompt, _told_apart(texts)) for prompt, texts in by_prompt.items()]


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
    texts = [(who, text[1:] if text[:1] == " " != text[1:2] else text) for who, text in texts]
    first = texts[0][1]
    told = [(texts[0][0], "", first)]
    for who, text in texts[1:]:
        length = next(
            (at for at, (one, other) in enumerate(zip(first, text, strict=False)) if one != other), -1
        )
        if length < 0:
            length = min(len(first), len(text))
        elif length < len(text):
            length = text.rfind(" ", 0, length + 1) + 1  # Back to the end of a word.
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
