"""Made-up models of what stages do, on which a search can be held against trying everything."""

from __future__ import annotations

import random
from collections.abc import Mapping

from roots_compress.search.choice import Point
from roots_compress.search.space import Candidate, candidates_of
from roots_compress.search.succession import Outcome

KINDS = {"p1": "prune", "p2": "prune", "d1": "distill", "q1": "quantize", "q2": "quantize", "q3": "quantize"}
CANDIDATES = candidates_of(KINDS, {"quantize"})
START = Point(1000.0, 10.0, 1.0)


def effects(seed: int) -> dict[str, Outcome]:
    """What each choice does by itself: factors on bytes, time and perplexity, and seconds."""
    source = random.Random(seed)
    return {
        name: Outcome(
            Point(source.uniform(0.2, 0.9), source.uniform(0.3, 1.1), source.uniform(1.0, 1.6)),
            source.uniform(1, 20),
        )
        for name in KINDS
    }


def table(seed: int, interaction: float = 0.0) -> dict[Candidate, Outcome]:
    """Return what would come of every candidate: products of effects, disturbed by up to `interaction`."""
    source, single = random.Random(seed + 1), effects(seed)
    outcomes: dict[Candidate, Outcome] = {(): Outcome(START, 1.0)}
    for candidate in CANDIDATES[1:]:
        before, effect = outcomes[candidate[:-1]].point, single[candidate[-1]]
        disturbed = len(candidate) > 1 and interaction
        noise = [source.uniform(1 - interaction, 1 + interaction) if disturbed else 1.0 for _ in before]
        point = Point(*(a * b * c for a, b, c in zip(before, effect.point, noise, strict=True)))
        outcomes[candidate] = Outcome(point, effect.seconds)
    return outcomes


def points(outcomes: Mapping[Candidate, Outcome]) -> dict[Candidate, Point]:
    return {candidate: outcome.point for candidate, outcome in outcomes.items()}
