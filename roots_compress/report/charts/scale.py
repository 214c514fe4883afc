"""Scales: the place of a value along an axis, and the values that the axis names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

MARGIN = 0.07
"""The share of an axis that stays free at each end."""
STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from values to units of a drawing."""

    low: float
    high: float
    start: float
    """Where `low` lies."""
    end: float
    logarithmic: bool = False

    @classmethod
    def over(
        cls,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        logarithmic: bool = False,
        from_zero: bool = False,
    ) -> Self:
        """Return a scale that holds all finite values; a logarithmic one holds the positive ones.

        Args:
            values: what is to be shown.
            start: where the axis begins, in units of the drawing.
            end: where it ends.
            logarithmic: whether equal ratios are of equal length.
            from_zero: whether a linear axis begins at 0.
        """
        kept = [value for value in values if math.isfinite(value) and (value > 0 or not logarithmic)]
        if logarithmic:
            logs = [math.log(value) for value in kept] or [0.0]
            low, high = _widened(min(logs), max(logs), least=0.2)
            return cls(math.exp(max(low, -700)), math.exp(min(high, 700)), start, end, True)
        kept = kept or [0.0]
        if from_zero:
            return cls(0.0, max(*kept, 0.0) * (1 + MARGIN) or 1.0, start, end)
        largest = max(map(abs, kept))
        low, high = _widened(min(kept), max(kept), least=0.05 * largest or 1.0)
        return cls(low, high, start, end)

    def at(self, value: float) -> float:
        """Return where a value lies; what a logarithmic axis cannot hold lies at its beginning."""
        if self.logarithmic:
            low = math.log(self.low)
            share = (math.log(max(value, self.low)) - low) / (math.log(self.high) - low)
        else:
            share = value / self.high if self.low == 0 else (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values on the axis, ascending: about `most` of them, or fewer."""
        if not self.logarithmic:
            return _round_values(self.low, self.high, most)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            named = [step * 10.0**decade for decade in decades for step in factors]
            named = [value for value in named if self.low <= value <= self.high]
            if len(named) <= most + 1:
                break
        if len(named) < 3:
            return _round_values(self.low, self.high, most)
        return named[:: math.ceil(len(named) / (most + 1))]


def _widened(low: float, high: float, *, least: float) -> tuple[float, float]:
    """Return two ends with a margin, which is `least` where they are equal."""
    free = (high - low) * MARGIN or least
    return low - free, high + free


def _round_values(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / most
    decade = 10.0 ** math.floor(math.log10(raw))
    step = next((step * decade for step in STEPS if step * decade >= raw), 10 * decade)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [index * step for index in range(first, min(last, first + 2 * most) + 1)]


def short(value: float) -> str:
    """Return a tick's value as an axis names it: `0.05`, `12.5`, `1,200`."""
    size = abs(value)
    if 1e-4 <= size < 100:
        return f"{value:.3g}"
    if 100 <= size < 1e6:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value else "0"


def names(ticks: Sequence[float]) -> list[str]:
    """Return what an axis calls its ticks: shortly, but with digits enough to tell them apart."""
    shown = list(map(short, ticks))
    for digits in range(4, 9):
        if len(set(shown)) == len(shown):
            break
        shown = [f"{tick:.{digits}g}" for tick in ticks]
    return shown
