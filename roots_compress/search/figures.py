"""What a search has measured of its candidates, made comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from roots_compress.search.choice import Point
from roots_compress.search.space import Candidate
from roots_compress.search.succession import Outcome


@dataclass(frozen=True)
class Figures:
    """One candidate's figures in the terms of `Point`, and the run's baseline's, timed in turns with it."""

    bytes: int
    cost: float
    milliseconds: float
    baseline_bytes: int
    baseline_milliseconds: float
    baseline_quality: float
    """Its value of the metric that decides."""
    seconds: float
    """What its last stage took, with export and measurement."""


def outcomes_of(figures: Mapping[Candidate, Figures]) -> dict[Candidate, Outcome]:
    """Return the candidates' outcomes, their times made comparable.

    A machine is not equally fast all the time. Each candidate was timed in turns with the baseline, so what
    is known of it is the ratio of the two; its milliseconds are that ratio times the median of all the
    baseline's.
    """
    usual_ms = baseline_of(figures)[0].milliseconds
    return {
        candidate: Outcome(
            Point(each.bytes, usual_ms * each.milliseconds / each.baseline_milliseconds, each.cost),
            each.seconds,
        )
        for candidate, each in figures.items()
    }


def baseline_of(figures: Mapping[Candidate, Figures]) -> tuple[Point, float]:
    """Return what the run's baseline costs, and its quality; at least one candidate must have been tried."""
    first = next(iter(figures.values()))
    milliseconds = median(each.baseline_milliseconds for each in figures.values())
    return Point(first.baseline_bytes, milliseconds, 1.0), first.baseline_quality
