"""How runs differ along each axis, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from roots_compress.evaluation.intervals import Interval, paired_difference
from roots_compress.report.text import megabytes
from roots_compress.results import Metrics
from roots_compress.tasks.figures.figures import Metric, percent

MEMORY_NOISE = 0.02
"""Peak memory of one graph varies by this much between processes; smaller differences do not count."""


QUALITY_ALONE = "intervals overlap, so on another text it may be the other way round"


QUALITY_IN_PAIRS = "interval of the difference holds 0, so on another text it may be the other way round"


@dataclass(frozen=True)
class Figure:
    """One figure of a row, with the interval that is known of it."""

    value: float
    interval: Interval | None = None
    paired: Metrics | None = None
    """For the main metric: the row, which has its values for each text, so that two rows compare in pairs."""


@dataclass(frozen=True)
class Axis:
    """A figure by which runs are compared."""

    key: str
    """As in CSV and JSON: `bytes`, `perplexity`, `decode_speedup`."""
    heading: str
    kind: Literal["size", "quality", "agreement", "speed", "memory"]
    better: Literal["lower", "higher"]
    metric: Metric | None = None
    """Of quality, and of agreement with the run's first model."""

    @property
    def compared_as(self) -> str:
        """The kind of comparability: some tasks' quality is similarity to the first model."""
        return "agreement" if self.metric is not None and self.metric.to_first else self.kind

    def shown(self, value: float) -> str:
        """Return a value as tables show it."""
        if self.metric is not None:
            return self.metric.shown(value)
        if self.kind == "size":  # Digits enough to tell runs apart.
            return f"{value / 1e6:#.4g} MB" if value < 9.9995e8 else f"{value / 1e6:,.0f} MB"
        return f"{value:.2f}x" if self.kind == "speed" else f"{megabytes(value)} MB"

    def change(self, before: float, after: float) -> str:
        """Return how a value differs from another: `+5.0%`, or `-0.012`."""
        if self.metric is not None and not self.metric.relative:
            return self.metric.shown_compared(after - before)
        return percent(after / before)


@dataclass(frozen=True)
class ComparedRow:
    """One stage of a run; figures by the keys of the axes, without those that do not compare."""

    run: str
    stage: str
    parameters: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Difference:
    """How the last row of a run differs from that of the first run in one figure."""

    key: str
    run: str
    change: str
    """`+5.0%`, or `-0.012` of a figure that compares by differences."""
    verdict: Literal["better", "worse", "equal", "within noise"]


def _alike(axis: Axis, one: Figure, other: Figure) -> bool:
    """Whether two figures are the same in all digits that are shown, or sizes in the change that is."""
    if axis.kind == "size" and axis.change(one.value, other.value) == axis.change(one.value, one.value):
        return True
    return axis.shown(one.value) == axis.shown(other.value)


def _apart(axis: Axis, one: Figure, other: Figure) -> bool:
    """Whether two figures differ by more than their known noise."""
    if axis.kind == "memory":
        return abs(one.value - other.value) > MEMORY_NOISE * max(one.value, other.value)
    if (difference := _difference(one, other)) is not None:
        return not difference[0] <= 0 <= difference[1]
    (low, high), (least, most) = (each.interval or (each.value, each.value) for each in (one, other))
    return low > most or least > high


def _difference(one: Figure, other: Figure) -> Interval | None:
    """Return the interval of two figures' difference over texts; None if their texts' values are unknown."""
    if one.paired is None or other.paired is None:
        return None
    return paired_difference(one.paired, other.paired)


def differences(axes: Sequence[Axis], last: Sequence[ComparedRow]) -> Iterator[Difference]:
    """Yield how the last row of each run but the first differs from the first run's."""
    for row in last[1:]:
        for axis in axes:
            if axis.key not in row.figures or axis.key not in last[0].figures:
                continue
            before, after = last[0].figures[axis.key], row.figures[axis.key]
            verdict: Literal["better", "worse", "equal", "within noise"] = "within noise"
            if _alike(axis, before, after):
                verdict = "equal"
            elif _apart(axis, before, after):
                verdict = "better" if (after.value < before.value) == (axis.better == "lower") else "worse"
            if before.value or (axis.metric is not None and not axis.metric.relative):
                yield Difference(axis.key, row.run, axis.change(before.value, after.value), verdict)


def sentences(axis: Axis, last: Sequence[ComparedRow]) -> Iterator[str]:
    """Yield which run is best by an axis; nothing if fewer than two have the figure."""
    having = [row for row in last if axis.key in row.figures]
    if len(having) < 2:
        return
    ordered = sorted(having, key=lambda row: row.figures[axis.key].value, reverse=axis.better == "higher")
    best, second = ordered[:2]
    mine, its = best.figures[axis.key], second.figures[axis.key]
    words = axis.heading[:1].upper() + axis.heading[1:]
    if _alike(axis, mine, ordered[-1].figures[axis.key]):
        yield f"{words}: no difference, {axis.shown(mine.value)}."
        return
    told = f"{best.run} is best with {_told(axis, mine)}; {second.run} has {_told(axis, its)}"
    if _alike(axis, mine, its):
        told = f"{best.run} and {second.run} are best with {_told(axis, mine)}"
    elif not _apart(axis, mine, its):
        if axis.metric is None:
            noise = "the repeats do" if axis.kind == "speed" else "noise"
            told = f"{best.run} and {second.run} do not differ by more than {noise}: "
            told += f"{_told(axis, mine)} and {_told(axis, its)}"
        else:
            told += f"; the 95% {QUALITY_ALONE if _difference(mine, its) is None else QUALITY_IN_PAIRS}"
    yield f"{words}: {told}."


def _told(axis: Axis, figure: Figure) -> str:
    interval = figure.interval
    spread = f" ({axis.shown(interval[0])} to {axis.shown(interval[1])})" if interval else ""
    return f"{axis.shown(figure.value)}{spread}"
