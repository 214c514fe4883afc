"""The candidates of a search as points of a drawing: size to the right, the metric that decides upwards.

Scales are logarithmic, but for a metric that compares by difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roots_compress.report.text import candidate_line
from roots_compress.results import SearchResult, candidate_label
from roots_compress.tasks.base import Task

WIDTH, HEIGHT = 900, 340
"""Of the drawing, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
"""What stays free around the points, for axes and labels."""


@dataclass(frozen=True)
class Dot:
    """One candidate: its place in the drawing, and what is said of it."""

    x: float
    y: float
    label: str
    figures: str
    on_front: bool
    best: bool


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """The drawing."""

    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT


def scatter(task: Task[Any], search: SearchResult) -> Scatter:
    """Return the drawing of a search; the front comes last, so that nothing hides it."""
    xs = _places([each.bytes / 1e6 for each in search.candidates], LEFT, WIDTH - RIGHT)
    metric = task.metric
    compared = [each.figures[metric.compared_name] for each in search.candidates]
    times = [each.figures[task.workload.time_name] for each in search.candidates]
    ys = _places(compared, HEIGHT - BOTTOM, TOP, logarithmic=metric.relative)
    dots = [
        Dot(
            x,
            y,
            candidate_label(each.stages),
            candidate_line(task, each.bytes, time, value),
            each.on_front,
            each.stages == search.best,
        )
        for each, x, y, time, value in zip(search.candidates, xs, ys, times, compared, strict=True)
    ]
    return Scatter(
        tuple(sorted(dots, key=lambda dot: (dot.best, dot.on_front))),
        _ends(xs, [f"{each.bytes / 1e6:.2f} MB" for each in search.candidates]),
        _ends(ys, [metric.shown_compared(value) for value in compared]),
    )


def _places(values: Sequence[float], low: float, high: float, *, logarithmic: bool = True) -> list[float]:
    """Return where values lie between two ends of a scale; in the middle where all are equal."""
    logs = [math.log(value) if logarithmic else value for value in values]
    least, span = min(logs), max(logs) - min(logs)
    return [low + (high - low) * ((each - least) / span if span else 0.5) for each in logs]


def _ends(places: Sequence[float], texts: Sequence[str]) -> tuple[Tick, ...]:
    """Return the ticks at both ends of an axis, or at its only place."""
    ticks = dict(sorted(zip(places, texts, strict=True)))
    first, last = min(ticks), max(ticks)
    return tuple(Tick(at, ticks[at]) for at in dict.fromkeys((first, last)))
