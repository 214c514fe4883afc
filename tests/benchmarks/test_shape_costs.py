"""By how much the gradients scale what K-FAC says of shapes."""

from __future__ import annotations

from benchmarks.shape_costs import factors
from tests.stages.prune.shapes import costs_of


def test_factors_are_those_between_costs_of_the_same_shapes() -> None:
    before = [
        costs_of({(2, 2): 0.0, (1, 2): 0.4}, {64: 0.0, 48: 0.1, 32: 0.3}),
        costs_of({(2, 2): 0.0}, {64: 0.0, 48: 0.2}),
    ]
    after = [
        costs_of({(2, 2): 0.0, (1, 2): 0.8}, {64: 0.0, 48: 0.05, 32: 0.15}),
        costs_of({(2, 2): 0.0}, {64: 0.0, 48: 0.6}),
    ]
    told = [tuple(round(factor, 6) for factor in pair) for pair in factors(before, after)]
    assert told == [(2.0, 0.5), (1.0, 3.0)]
