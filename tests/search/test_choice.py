"""The Pareto front and the choice under budgets, against exhaustive comparison and worked cases."""

from __future__ import annotations

import math
import random

import pytest

from roots_compress.configs.gates import GatesConfig
from roots_compress.search.choice import Budgets, Point, best, budgets_of, front, rank
from roots_compress.tasks.registry import CAUSAL_LM


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_is_left_when_everything_that_is_beaten_goes(seed: int) -> None:
    source = random.Random(seed)
    points = {name: Point(*(source.randint(1, 4) for _ in range(3))) for name in range(12)}
    left = set(points)
    for one in points:
        for other in points:
            a, b = points[one], points[other]
            if all(x <= y for x, y in zip(a, b, strict=True)) and any(
                x < y for x, y in zip(a, b, strict=True)
            ):
                left.discard(other)
    assert front(points) == left
    assert left


def test_equal_points_are_on_the_front_together() -> None:
    assert front({"a": Point(1, 1, 1), "b": Point(1, 1, 1), "c": Point(1, 1, 2)}) == {"a", "b"}


POINTS = {
    "whole": Point(100, 10, 1.0),
    "int8": Point(30, 4, 1.01),
    "int4": Point(20, 5, 1.1),
    "half": Point(50, 6, 1.3),
    "half int8": Point(15, 2, 1.32),
}


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (Budgets(bytes=40), "int8"),
        (Budgets(bytes=25), "int4"),
        (Budgets(bytes=100), "whole"),
        (Budgets(milliseconds=3), "half int8"),
        (Budgets(bytes=25, milliseconds=4), "half int8"),
        # Perplexity alone is bounded: the least bytes times milliseconds.
        (Budgets(cost=1.2), "int4"),
        (Budgets(cost=1.4), "half int8"),
        # Bytes are free, time is bounded: the fewest bytes.
        (Budgets(cost=1.2, milliseconds=9), "int4"),
        (Budgets(cost=1.2, milliseconds=4.5), "int8"),
        # All bounded: the least perplexity.
        (Budgets(60, 9, 1.2), "int8"),
        # None keeps it: the nearest.
        (Budgets(bytes=1), "half int8"),
        # In nats: log(15/14) + log(1.32/1.005) = 0.34, where int4 has 0.45.
        (Budgets(bytes=14, cost=1.005), "half int8"),
        (Budgets(bytes=28, cost=1.005), "int8"),
    ],
)
def test_the_best_under_budgets(budgets: Budgets, expected: str) -> None:
    assert best(POINTS, budgets) == expected


def test_overruns_add_up_in_nats() -> None:
    overrun, *_ = rank(Point(20, 3, 2.0), Budgets(10, 4, 1.5))
    assert overrun == pytest.approx(math.log(2) + math.log(2 / 1.5))
    assert rank(Point(10, 4, 1.5), Budgets(10, 4, 1.5))[0] == 0


def test_gates_are_budgets_and_the_stricter_of_two_holds() -> None:
    baseline = Point(1000, 8, 1.0)
    assert budgets_of(CAUSAL_LM, GatesConfig(max_perplexity_ratio=1.3), baseline, 20.0) == Budgets(cost=1.3)
    gates = GatesConfig(max_bytes=300, min_size_ratio=4.0, max_decode_ms=3.0, min_decode_speedup=2.0)
    assert budgets_of(CAUSAL_LM, gates, baseline, 20.0) == Budgets(bytes=250, milliseconds=3.0)
