"""Uncertainty of timings: intervals of speeds, and of ratios of speeds that were timed in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from roots_compress.evaluation.intervals import Interval
from roots_compress.results import Speed, StageResult
from roots_compress.tasks.figures.figures import Workload

CONFIDENCE = 0.95
SPEED_NOISE = 0.05
"""Timings on a shared machine vary by this share between runs; smaller differences do not count."""


@dataclass(frozen=True)
class Measured:
    """A figure with the interval from its repeats."""

    value: float
    interval: Interval


UNTIMED = Measured(math.nan, (math.nan, math.nan))


def speeds(stage: StageResult, workload: Workload) -> tuple[Speed, ...]:
    """Return the stage's speeds in a workload, by rising context; none before a run's end."""
    return tuple(sorted(stage.metrics.timings.get(workload.figure, ()), key=lambda speed: speed.context))


def speed_interval(speed: Speed) -> Interval:
    """Return bounds of a speed's median; see `median_interval`. Without the repeats, their extremes."""
    low, high = median_interval(speed.repeats) if speed.repeats else (speed.low, speed.high)
    return _at_least_noise(speed.median, low, high)


def time_of(stage: StageResult, workload: Workload) -> Measured:
    """Return the milliseconds of a unit of work at the longest context, or `UNTIMED`."""
    timed = speeds(stage, workload)
    if not timed:
        return UNTIMED
    low, high = speed_interval(timed[-1])
    return Measured(1000 / timed[-1].median, (1000 / high, 1000 / low))


def speedup_of(before: StageResult, after: StageResult, workload: Workload) -> Measured:
    """Return how many times faster `after` is at the longest context that both rows of a run were timed at.

    Rows of a run are timed in turns, so each repeat of one is paired with one of the other: a slow machine
    affects both, and their ratio does not change. The interval is that of these ratios' median. Files of
    earlier versions have no repeats; there the interval is from the lowest to the highest ratio that the
    extremes allow.

    Returns:
        The ratio of the medians with its interval, or `UNTIMED` where there is no common context.
    """
    old = {speed.context: speed for speed in speeds(before, workload)}
    common = [speed for speed in speeds(after, workload) if speed.context in old]
    if not common:
        return UNTIMED
    new, was = common[-1], old[common[-1].context]
    ratio = new.median / was.median
    if before is after:
        return Measured(1.0, (1.0, 1.0))
    if new.repeats and len(new.repeats) == len(was.repeats):
        pairs = zip(new.repeats, was.repeats, strict=True)
        low, high = median_interval([mine / its for mine, its in pairs])
    else:
        low, high = new.low / was.high, new.high / was.low
    return Measured(ratio, _at_least_noise(ratio, min(low, ratio), max(high, ratio)))


def gain_of(before: StageResult, after: StageResult, workload: Workload) -> float:
    """Return how many times faster a row is, 1 if its repeats leave that open, and NaN if it is not known."""
    measured = speedup_of(before, after, workload)
    low, high = measured.interval
    is_open = low <= 1 <= high and bool(speeds(after, workload)[-1].repeats)
    return 1.0 if is_open else measured.value


def relative(after: Measured, before: Measured) -> Measured:
    """Return the ratio of two figures that were measured apart, with the widest interval they allow."""
    (low, high), (least, most) = after.interval, before.interval
    return Measured(after.value / before.value, (low / most, high / least))


def _at_least_noise(value: float, low: float, high: float) -> Interval:
    """Return an interval, or where a single repeat has none what timings differ by in general."""
    return (low, high) if low < high else (value * (1 - SPEED_NOISE), value * (1 + SPEED_NOISE))


def median_interval(values: Sequence[float]) -> Interval:
    """Return the narrowest pair of order statistics that holds the median with 95%, or else the extremes.

    It assumes nothing of how the values are distributed: of n independent ones, those from the k-th lowest to
    the k-th highest hold the median unless fewer than k lie on one side of it, which is binomial.
    """
    ordered, count = sorted(values), len(values)
    left_out, missed = 0, 1.0
    while left_out + 1 <= (count - 1) // 2:
        missed += math.comb(count, left_out + 1)
        if 2 * missed / 2**count > 1 - CONFIDENCE:
            break
        left_out += 1
    return ordered[left_out], ordered[count - 1 - left_out]
