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
    """One candidate's figures, and the run's baseline's, timed in turns with it."""

    bytes: int
    perplexity_ratio: float
    decode_ms: float
    baseline_bytes: int
    baseline_decode_ms: float
    seconds: float
    """What its last stage took, with export and measurement."""


def outcomes_of(figures: Mapping[Candidate, Figures]) -> dict[Candidate, Outcome]:
    """Return the candidates' outcomes, their times made comparable.

    A machine is not equally fast all the time. Each candidate was timed in turns with the baseline, so what
    is known of it is the ratio of the two; its milliseconds are that ratio times the median of all the
    baseline's.
    """
    usual_ms = baseline_of(figures).decode_ms
    return {
        candidate: Outcome(
            Point(each.bytes, usual_ms * each.decode_ms / each.baseline_decode_ms, each.perplexity_ratio),
            each.seconds,
        )
        for candidate, each in figures.items()
    }


def baseline_of(figures: Mapping[Candidate, Figures]) -> Point:
    """Return the figures of the run's baseline; at least one candidate must have been tried."""
    first = next(iter(figures.values()))
    return Point(first.baseline_bytes, median(each.baseline_decode_ms for each in figures.values()), 1.0)
