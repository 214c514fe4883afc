"""The kinds of a task's figures: metrics of quality, and timed workloads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

EXACT_DIGITS = 12
"""Decimals of a difference; further ones of doubles between 0 and 100 are rounding."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 window`, `2,400 windows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(ratio: float) -> str:
    """Return the difference of a ratio from 1: `+5.0%`."""
    return f"{round(ratio - 1, 3) + 0.0:+.1%}"  # No `-0.0%`.


@dataclass(frozen=True)
class Metric:
    """A figure of quality: its name and direction, and how reports show it."""

    name: str
    """Its key in `metrics.json`, and its name in gates."""
    heading: str
    better: Literal["lower", "higher"]
    digits: int = 3
    """Decimals in a table."""
    relative: bool = True
    """Whether two values compare by their ratio (positive values only) or by their difference."""
    across_tokenizers: bool = False
    """Whether values compare between models with different tokenizers."""
    optional: bool = False
    """Whether a row may lack it, because a package is missing or an earlier version did not measure it."""
    package: str = ""
    """The optional package's module that it needs, if any."""
    gate: str = ""
    """Its name in gates, if that is not `name`."""
    to_first: bool = False
    """Whether it is similarity to the run's first model, so that it compares only between runs of that
    model."""
    most: float | None = None
    """The largest possible value, where an interval ends; None if unlimited."""
    logarithm: str | None = None
    """The metric proportional to this one's logarithm for each text, which compares between models with
    different tokenizers."""

    def shown(self, value: float) -> str:
        """Return a value as tables show it."""
        return f"{value:.{self.digits}f}"

    def shown_of(self, quality: Mapping[str, float]) -> str:
        """Return a row's value as tables show it; `n/a` if an optional one is missing."""
        return "n/a" if self.optional and self.name not in quality else self.shown(quality[self.name])

    def compared(self, before: float, after: float) -> float:
        """Return the comparison of a value with another: their ratio, or their difference.

        A share that falls from 0.9 to 0.89 changes by -0.01: rounding must not decide at a bound.
        """
        return after / before if self.relative else round(after - before, EXACT_DIGITS)

    def shown_compared(self, compared: float) -> str:
        """Return the comparison as tables show it: `1.050x`, or `-0.012`."""
        if self.relative:
            return f"{compared:.3f}x"
        return f"{round(compared, self.digits) + 0.0:+.{self.digits}f}"  # No `-0.000`.

    def change(self, before: float, after: float) -> str:
        """Return a change as sentences show it: `perplexity +5.0%`, or `accuracy -0.012`."""
        compared = self.compared(before, after)
        told = percent(compared) if self.relative else self.shown_compared(compared)
        return f"{self.heading} {told}"

    def from_position(self, start: int) -> str:
        """Return the key of its value over the tokens from a position in windows up to the next group."""
        return f"{self.name}_from_{start}"

    @property
    def bound(self) -> str:
        """The name of a gate on a value."""
        return f"{'max' if self.better == 'lower' else 'min'}_{self.gate or self.name}"

    @property
    def compared_bound(self) -> str:
        """The name of a gate on a value against another row's."""
        return f"{self.bound}_{'ratio' if self.relative else 'change'}"

    @property
    def compared_name(self) -> str:
        """The key of a value against the baseline's, in the figures of a search."""
        return f"{self.name}_{'ratio' if self.relative else 'change'}"

    def improved(self, before: float, after: float) -> bool:
        """Return whether a value is better than another."""
        return after < before if self.better == "lower" else after > before

    def cost(self, compared: float) -> float:
        """Return the factor by which a model is worse, below 1 if it is better.

        A difference is treated like the logarithm of a ratio: costs multiply as differences add up.
        """
        ratio = compared if self.relative else math.exp(compared)
        return ratio if self.better == "lower" else 1 / ratio

    def of_cost(self, cost: float) -> float:
        """Return the ratio or the difference for a cost."""
        ratio = cost if self.better == "lower" else 1 / cost
        return ratio if self.relative else round(math.log(ratio), EXACT_DIGITS)


def share(name: str, heading: str, *, digits: int = 4, optional: bool = False, package: str = "") -> Metric:
    """Return a metric that is better if higher, and compares by differences and across tokenizers."""
    return Metric(
        name,
        heading,
        "higher",
        digits=digits,
        relative=False,
        across_tokenizers=True,
        optional=optional,
        package=package,
    )


AGREEMENT = (
    Metric("kl_mean", "mean KL", "lower", digits=5, relative=False, optional=True, gate="kl", to_first=True),
    Metric("kl_median", "median KL", "lower", digits=5, relative=False, optional=True, to_first=True),
    Metric("kl_p99", "KL at 99%", "lower", digits=4, relative=False, optional=True, to_first=True),
    Metric("same_top", "same first choice", "higher", relative=False, optional=True, digits=4, to_first=True),
)
"""Agreement with the run's first model at each scored position (a token or a text): the divergence KL(first
|| model) in nats, and the share of positions with the same likeliest choice."""


@dataclass(frozen=True)
class Workload:
    """A kind of work that is timed at each length: its figure is in units a second."""

    phase: str
    """Its name, as in the gate `max_decode_ms`."""
    figure: str
    """Its key in `metrics.json`, which ends in `_per_second`."""
    heading: str
    title: str
    """Title of its chart."""
    unit: str
    """The unit, in the singular: `token`."""

    @property
    def words(self) -> str:
        """Its name in sentences and headings."""
        return self.phase.replace("_", " ")

    @property
    def time_name(self) -> str:
        """The name of the milliseconds of a unit, in gates and in a search's figures."""
        return f"{self.phase}_ms"

    @property
    def speedup_bound(self) -> str:
        """The name of a gate on the speed, against another row's."""
        return f"min_{self.phase}_speedup"


def gates_on(metrics: Sequence[Metric], workloads: Sequence[Workload]) -> frozenset[str]:
    """Return the names of the gates that bound these figures."""
    bounds = [bound for metric in metrics for bound in (metric.bound, metric.compared_bound)]
    bounds += [bound for work in workloads for bound in (f"max_{work.time_name}", work.speedup_bound)]
    return frozenset(bounds)
