"""95% intervals of quality over samples of text: of a row, and of the ratio of two rows.

Shape legend: E examples, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roots_compress.results import Metrics
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.predictions import Scores

RESAMPLES = 4000
OUTSIDE = 0.05
"""Share of the resampled values outside an interval, both sides together, for many examples."""
DRAWN_AT_ONCE = 1_000_000
"""Examples of all resamples drawn together: 8 MB."""
Interval = tuple[float, float]


def interval(
    scores: Scores, of_mean: Callable[[float], float] = float, *, most: float | None = None
) -> Interval | None:
    """Return the 95% interval of a figure by the bootstrap over its examples; None with fewer than two.

    Examples are resampled with replacement, `RESAMPLES` times from a fixed seed, and the figure is computed
    for each resample (Efron 1979, "Bootstrap methods: another look at the jackknife"). The bounds are
    percentiles, moved outwards for few examples: plain ones would be too narrow (Hesterberg 2015, "What
    teachers should know about the bootstrap", the expanded percentile interval).

    Args:
        of_mean: the figure for a mean over all positions; it must be increasing.
        most: the largest possible figure, if there is one.
    """
    if len(scores.counts) < 2:
        return None
    low, high = _bounds(_resampled_means(scores.sums, scores.counts), len(scores.counts))
    ends = of_mean(low), of_mean(high)
    return ends if most is None else (min(ends[0], most), min(ends[1], most))


def paired_interval(task: Task[Any], before: Metrics, after: Metrics) -> Interval | None:
    """Return the 95% interval of the first metric's ratio to another row's, or of the difference.

    Both rows are resampled with the same examples, so that an example that is hard for both cancels out. None
    if the rows were not measured on the same examples, or on fewer than two.

    Args:
        before: the row that is compared with.
    """
    found = paired_difference(before, after)
    return None if found is None else (task.of_mean(found[0]), task.of_mean(found[1]))


def paired_difference(before: Metrics, after: Metrics) -> Interval | None:
    """Return the interval of the difference of means: two rows differ if it does not contain 0."""
    old, new = _scores(before), _scores(after)
    if len(new.counts) < 2 or not np.array_equal(old.counts, new.counts):
        return None
    return _bounds(_resampled_means(new.sums - old.sums, new.counts), len(new.counts))


def stored(scores: Scores) -> tuple[tuple[float, int], ...]:
    """Return scores as a row of figures holds them."""
    return tuple(zip(scores.sums.tolist(), scores.counts.tolist(), strict=True))


def _scores(metrics: Metrics) -> Scores:
    sums, counts = zip(*metrics.scores, strict=True) if metrics.scores else ((), ())
    return Scores(np.array(sums, dtype=np.float64), np.array(counts, dtype=np.int64))


def _resampled_means(sums_E: NDArray[np.float64], counts_E: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean over all positions of each resample, `R`.

    Resamples are drawn some at a time, because the table of counts is large.
    """
    count, random = len(counts_E), np.random.default_rng(0)
    step, means = max(1, DRAWN_AT_ONCE // count), list[NDArray[np.float64]]()
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn_RE = random.multinomial(count, np.full(count, 1 / count), size=size)
        means.append((drawn_RE @ sums_E) / (drawn_RE @ counts_E))
    return np.concatenate(means)


def _bounds(values_R: NDArray[np.float64], count: int) -> Interval:
    """Return the percentiles of resampled values between which 95% of a new sample's would lie."""
    spread = (count / (count - 1)) ** 0.5 * _student(count - 1)
    outside = NormalDist().cdf(-spread)
    low, high = np.quantile(values_R, (outside, 1 - outside))
    return float(low), float(high)


def _student(freedom: int) -> float:
    """Return the upper 2.5% point of Student's t, by its expansion (Fisher and Cornish 1960)."""
    z = NormalDist().inv_cdf(1 - OUTSIDE / 2)
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))
