"""Bars, which the page draws as boxes of HTML: lengths in percent of the longest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from roots_compress.report.charts.lines import COLOURS


@dataclass(frozen=True)
class Step:
    """One bar of a waterfall."""

    label: str
    start: float
    """Where the bar begins, in percent of the longest."""
    length: float
    kind: Literal["total", "less", "more"]
    value: float
    """The total, or the change."""


def waterfall(labels: Sequence[str], totals: Sequence[float]) -> list[Step]:
    """Return the first total, what each stage took off or added, and the last total.

    Args:
        labels: of the first row and of each stage.
        totals: of the rows, at least one, all positive.
    """
    longest = max(totals)
    steps = [Step(labels[0], 0.0, 100 * totals[0] / longest, "total", totals[0])]
    for label, (before, after) in zip(labels[1:], pairwise(totals), strict=True):
        low, high = sorted((before, after))
        kind: Literal["less", "more"] = "more" if after > before else "less"
        steps.append(Step(label, 100 * low / longest, 100 * (high - low) / longest, kind, after - before))
    if len(totals) > 1:
        steps.append(Step("result", 0.0, 100 * totals[-1] / longest, "total", totals[-1]))
    return steps


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar."""

    group: str
    length: float
    """In percent of the longest bar."""
    value: float
    colour: int


def stacked(rows: Sequence[Mapping[str, float]]) -> tuple[list[str], list[list[Part]]]:
    """Return the groups, largest first, and the parts of each row; small groups become `other`.

    Args:
        rows: values of each row by group, none negative.
    """
    largest: dict[str, float] = {}
    for row in rows:
        for group, value in row.items():
            largest[group] = max(largest.get(group, 0.0), value)
    groups = sorted(largest, key=lambda group: -largest[group])
    if len(groups) > COLOURS:
        kept = [group for group in groups[: COLOURS - 1] if group != "other"]
        rows = [
            {
                **{group: row.get(group, 0.0) for group in kept},
                "other": sum(value for group, value in row.items() if group not in kept),
            }
            for row in rows
        ]
        groups = [*kept, "other"]
    longest = max((sum(row.values()) for row in rows), default=0.0) or 1.0
    return groups, [
        [
            Part(group, 100 * row[group] / longest, row[group], colour)
            for colour, group in enumerate(groups)
            if row.get(group)
        ]
        for row in rows
    ]
