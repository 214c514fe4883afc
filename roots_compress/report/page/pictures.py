"""The charts of a run's page, from its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from markupsafe import Markup

from roots_compress.report.charts.bars import Part, Step, stacked, waterfall
from roots_compress.report.charts.frame import NARROW, WIDE, Axis
from roots_compress.report.charts.lines import Mark, Series, lines
from roots_compress.report.charts.plane import Role, Spot, plane
from roots_compress.report.charts.profile import profile
from roots_compress.report.compare import Comparison
from roots_compress.report.gates import start_fault
from roots_compress.report.rows import quality_of
from roots_compress.report.spread import speeds
from roots_compress.report.text import candidate_line, megabytes
from roots_compress.report.verdict import numbered
from roots_compress.results import CandidateResult, Point, RunMetrics, Speed, StageResult, candidate_label
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Metric
from roots_compress.training.summary import Judged

LOSSES = {
    "pairs": "next-sentence loss (nsp)",
    "generator": "loss of the generator (rtd)",
    "replaced": "replaced-token loss (rtd)",
}
"""Parts of an objective whose own names say too little."""
LARGEST_ERRORS = 10
"""Weights that are named, of each stage."""
FEWEST_WEIGHTS = 8
"""Of a profile along the model."""


@dataclass(frozen=True)
class Chart:
    """A drawing at two widths, of which the page shows the one that fits."""

    title: str
    note: str
    wide: Markup
    narrow: Markup


def _chart(title: str, note: str, draw: Callable[[int], Markup]) -> Chart:
    return Chart(title, note, draw(WIDE), draw(NARROW))


def stage_spots(task: Task[Any], stages: Iterable[StageResult], *, colour: int = 1) -> Iterator[Spot]:
    """Yield each row by its megabytes and the metric that decides."""
    for stage in stages:
        (value,) = quality_of(task, stage)
        name, size = numbered(stage), stage.metrics.bytes
        bounds = stage.metrics.intervals.get(task.metric.name)
        told = f"{name}: {megabytes(size)} MB, {task.metric.heading} {task.metric.shown(value)}"
        yield Spot(name, size / 1e6, value, y_bounds=bounds, colour=colour, told=told)


def quality_axis(metric: Metric) -> Axis:
    """Return the axis of the metric that decides, with its direction."""
    return Axis(f"{metric.heading} ({metric.better} is better)", logarithmic=metric.relative)


def trade_offs(task: Task[Any], run: RunMetrics) -> list[Chart]:
    """Return quality against bytes, and against the time of the workload that decides where it was taken."""
    stages, workload = list(stage_spots(task, run.stages)), task.workload
    # All rows read the same text, so what they differ by is surer than what each is.
    stages = [
        replace(spot, y_bounds=_around_first(task, run, stage))
        for spot, stage in zip(stages, run.stages, strict=True)
    ]
    candidates = _others(run)
    others = [_candidate_spot(task, run, each) for each in candidates]
    size = Axis("megabytes, logarithmic", logarithmic=True)
    note = "Filled dots: no other model here is as good in both figures and better in one."
    if others:
        note += (
            " Large marks are the run's stages, small ones candidates of the search, squares its controls."
        )
    of = f"the change of {task.metric.heading} from the first row"
    charts = [_plane("Quality against size", note, task, stages + others, size, of)]
    timed = [
        replace(spot, x=time, x_bounds=bounds)
        for spot, stage in zip(stages, run.stages, strict=True)
        for time, bounds in map(_times, speeds(stage, workload)[-1:])
    ]
    if timed:
        name = workload.time_name
        timed += [replace(spot, x=each.figures[name]) for spot, each in zip(others, candidates, strict=True)]
        time = Axis(f"{workload.words} milliseconds a {workload.unit}, logarithmic", logarithmic=True)
        note = f"At the longest {task.reads}. Horizontal lines hold the fastest and the slowest repeat."
        charts.append(_plane("Quality against time", note, task, timed, time, of))
    return charts


def compared_sizes(task: Task[Any], compared: Comparison, runs: Sequence[RunMetrics]) -> Chart | None:
    """Return quality against size of all runs, each in a colour; None where quality does not compare."""
    if task.metric.name not in (axis.key for axis in compared.axes):
        return None
    if task.metric.to_first and any(start_fault(runs[0], each) for each in runs):
        return None
    spots = []
    for colour, (name, run) in enumerate(zip(compared.runs, runs, strict=True), 1):
        *before, last = stage_spots(task, run.stages, colour=colour)
        told = [replace(spot, told=f"{name}: {spot.told}") for spot in (*before, last)]
        spots += [replace(spot, label="") for spot in told[:-1]] + [replace(told[-1], label=name)]
    note = "Each run's stages are joined, and its last one has the run's name."
    return _plane("Quality against size", note, task, spots, Axis("megabytes, logarithmic", logarithmic=True))


def _others(run: RunMetrics) -> list[CandidateResult]:
    """Return the candidates of a search that are no stage of the run."""
    search = run.search
    if search is None:
        return []
    return [each for each in search.candidates if each.role != "baseline" and each.stages != search.best]


def _around_first(task: Task[Any], run: RunMetrics, stage: StageResult) -> tuple[float, float] | None:
    """Return the interval of a row's change from the first row, about the first row's figure."""
    bounds = stage.metrics.intervals.get(task.metric.compared_name)
    (first,) = quality_of(task, run.stages[0])
    if bounds is None:
        return None
    low, high = bounds
    return (first * low, first * high) if task.metric.relative else (first + low, first + high)


def _plane(title: str, note: str, task: Task[Any], spots: list[Spot], x: Axis, of: str = "") -> Chart:
    metric = task.metric
    if any(spot.y_bounds for spot in spots):
        note += f" Vertical lines are 95% intervals of {of or metric.heading}."

    def draw(width: int) -> Markup:
        lower = metric.better == "lower"
        return plane(title, spots, x, quality_axis(metric), lower_is_better=lower, width=width)

    return _chart(title, note, draw)


def _candidate_spot(task: Task[Any], run: RunMetrics, candidate: CandidateResult) -> Spot:
    """Return a candidate of a search, its quality from its relation to the first row's."""
    (first,) = quality_of(task, run.stages[0])
    compared = candidate.figures[task.metric.compared_name]
    value = first * compared if task.metric.relative else first + compared
    name = candidate_label(candidate.stages)
    role: Role = "control" if candidate.role == "control" else "candidate"
    time = candidate.figures[task.workload.time_name]
    told = f"{name}: {candidate_line(task, candidate.bytes, time, compared)}"
    return Spot(name, candidate.bytes / 1e6, value, role=role, told=told)


def _times(speed: Speed) -> tuple[float, tuple[float, float]]:
    """Return the milliseconds of a unit, and those of the fastest and the slowest repeat."""
    return 1000 / speed.median, (1000 / speed.high, 1000 / speed.low)


def latency(task: Task[Any], run: RunMetrics) -> list[Chart]:
    """Return for each workload the milliseconds of a unit by length, a line for each row."""
    charts = []
    for workload in reversed(task.workloads):
        series = []
        for colour, stage in enumerate(run.stages):
            marks = tuple(Mark(speed.context, *_times(speed)) for speed in speeds(stage, workload))
            if marks:
                series.append(Series(numbered(stage), marks, colour))
        contexts = sorted({mark.x for each in series for mark in each.marks})
        if not series:
            continue
        title = f"{workload.words.capitalize()}: milliseconds a {workload.unit}"
        x = Axis(f"tokens of {task.reads}", logarithmic=min(contexts) > 0)
        charts.append(_lines(title, series, contexts, x, f"ms a {workload.unit}"))
    return charts


def _lines(title: str, series: list[Series], contexts: list[float], x: Axis, unit: str) -> Chart:
    y = Axis(f"{unit} (lower is better)", from_zero=True)

    def draw(width: int) -> Markup:
        return lines(title, series, x, y, width=width, dots=True, named=contexts)

    return _chart(title, "Medians; vertical lines hold the fastest and the slowest repeat.", draw)


def curves(run: RunMetrics) -> list[Chart]:
    """Return what each stage followed while it trained; its first curve says what the training was worth."""
    charts: list[Chart] = []
    for stage in run.stages:
        drawn: list[tuple[Point, ...]] = []
        worth = _worth(stage)
        for name, points in stage.curves.items():
            # A loss of one part is that part: one curve says both.
            if points and points not in drawn:
                drawn.append(points)
                marks = tuple(Mark(point.step, point.value) for point in points)
                title = f"{numbered(stage)}: {LOSSES.get(name, name.replace('_', ' '))}"
                charts.append(_curve(title, marks, worth if len(drawn) == 1 else ""))
    return charts


def _worth(stage: StageResult) -> str:
    """Say what a stage's training did on text that it did not read; nothing where that was not measured."""
    found = (Judged.in_notes(notes) for notes in (stage.notes, *stage.notes.values()))
    judged = next(filter(None, found), None)
    if judged is None:
        return ""
    kept = "so the weights from before were kept" if judged.worse else "so the trained weights were kept"
    return f" On text kept back from it: {judged.before:.4g} before, {judged.after:.4g} after, {kept}."


def _curve(title: str, marks: tuple[Mark, ...], worth: str) -> Chart:
    last = f"On training text. At the end, step {marks[-1].x:,.0f}: {marks[-1].y:.4g}.{worth}"

    def draw(width: int) -> Markup:
        return lines(title, [Series(title, marks, 1)], Axis("steps"), Axis(""), width=width, height=190)

    return _chart(title, last, draw)


def taken_off(run: RunMetrics) -> list[tuple[Step, str]]:
    """Return the waterfall of bytes, each bar with what is said of it; nothing for a single row."""
    totals = [float(stage.metrics.bytes) for stage in run.stages]
    if len(totals) < 2:
        return []
    steps = waterfall([numbered(stage) for stage in run.stages], totals)
    return [(step, _signed(step)) for step in steps]


def _signed(step: Step) -> str:
    shown = f"{megabytes(round(abs(step.value)))} MB"
    if step.kind == "total":
        return shown
    if not float(shown.split()[0]):
        return "no change"
    return f"{'+' if step.value > 0 else '−'}{shown}"


@dataclass(frozen=True)
class Groups:
    """Bytes by groups of tensors."""

    names: list[str]
    bars: list[tuple[str, list[Part], str]]
    """Of each row its name, its parts and its total."""
    table: list[tuple[str, list[str]]]
    """Of each group the megabytes in each row, and their share of the last one."""


def groups(run: RunMetrics) -> Groups | None:
    """Return where the bytes of each row's graph are; None where no row says."""
    stages = [stage for stage in run.stages if stage.metrics.bytes_by_group]
    if not stages:
        return None
    names, parts = stacked([stage.metrics.bytes_by_group for stage in stages])
    bars = [
        (numbered(stage), row, f"{megabytes(stage.metrics.bytes)} MB")
        for stage, row in zip(stages, parts, strict=True)
    ]
    table = []
    for group in names:
        values = [next((part.value for part in row if part.group == group), 0.0) for row in parts]
        share = values[-1] / (sum(part.value for part in parts[-1]) or 1.0)
        table.append((group, [*(megabytes(round(value)) for value in values), f"{share:.1%}"]))
    return Groups(names, bars, table)


@dataclass(frozen=True)
class Errors:
    """What a stage did to its weights."""

    stage: str
    largest: list[tuple[str, float, str, bool]]
    """Name, length in percent, error, and whether it kept a higher precision."""
    count: int
    higher: int
    chart: Chart | None
    """None where the weights are too few to show a profile."""


def errors(run: RunMetrics) -> list[Errors]:
    """Return the errors of each stage that measured them, with the largest named."""
    found = []
    for stage in run.stages:
        measured = stage.layer_errors
        if not measured:
            continue
        ordered = sorted(measured, key=lambda each: -each.error)[:LARGEST_ERRORS]
        longest = max(ordered[0].error, 1e-300)
        title = f"{numbered(stage)}: errors along the model"
        higher = sum(each.higher_precision for each in measured)
        largest = [
            (each.name, max(0.0, 100 * each.error / longest), f"{each.error:#.3g}", each.higher_precision)
            for each in ordered
        ]
        note = "Squared error of each module's outputs on calibration text, relative to their square."
        if higher:
            note += " Orange: kept a higher precision."
        draw = partial(profile, title, measured)
        chart = _chart(title, note, lambda width, draw=draw: draw(width=width))  # type: ignore[misc]
        shown = chart if len(measured) >= FEWEST_WEIGHTS else None
        found.append(Errors(numbered(stage), largest, len(measured), higher, shown))
    return found
