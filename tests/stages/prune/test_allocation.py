"""Allocation against exhaustive search on small cases."""

from __future__ import annotations

import random
from itertools import product

import pytest

from roots_compress.stages.prune.targets import knapsack as allocation
from roots_compress.stages.prune.targets.knapsack import Option, cheapest, cheapest_equal


def random_options(seed: int, layers: int = 4, count: int = 4, unit: int = 3) -> list[list[Option]]:
    """Return options of any shape: costs need neither rise with the saving nor be convex."""
    rng = random.Random(seed)
    return [
        [Option(0, 0.0), *(Option(unit * rng.randrange(1, 12), rng.random()) for _ in range(count - 1))]
        for _ in range(layers)
    ]


def totals(options: list[list[Option]], numbers: tuple[int, ...]) -> tuple[int, float]:
    parts = [layer[number] for layer, number in zip(options, numbers, strict=True)]
    return sum(part.saved for part in parts), sum(part.cost for part in parts)


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_exhaustive_search(seed: int) -> None:
    options = random_options(seed)
    needed = 40
    every = [totals(options, numbers) for numbers in product(range(4), repeat=4)]
    saved, cost = totals(options, tuple(cheapest(options, needed)))
    assert saved >= needed
    assert cost == pytest.approx(min(cost for saved, cost in every if saved >= needed))


def test_a_coarse_grid_still_saves_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "FINEST_GRID", 7)
    for seed in range(200):
        options = [[Option(50, 1.0), *layer] for layer in random_options(seed, unit=1)]
        assert totals(options, tuple(cheapest(options, 23)))[0] >= 23


def test_a_coarse_grid_finds_the_most_that_can_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "FINEST_GRID", 7)
    for seed in range(50):
        options = random_options(seed, unit=1)
        most = sum(max(option.saved for option in layer) for layer in options)
        saved, cost = totals(options, tuple(cheapest(options, most)))
        assert saved == most
        every = (totals(options, numbers) for numbers in product(range(4), repeat=4))
        assert cost == min(cost for saved, cost in every if saved == most)
        with pytest.raises(ValueError, match=f"saves {most + 1}"):
            cheapest(options, most + 1)


def test_what_cannot_be_saved_is_an_error() -> None:
    with pytest.raises(ValueError, match="saves 100"):
        cheapest([[Option(0, 0.0), Option(9, 1.0)]] * 3, 100)


@pytest.mark.parametrize("seed", range(8))
def test_equal_shapes_equal_exhaustive_search(seed: int) -> None:
    rng = random.Random(seed)
    shapes = [0, 4, 7, 11]
    options = [[Option(saved, saved * rng.random()) for saved in shapes] for _ in range(4)]
    dropped = [Option(20, 20 * rng.random()) for _ in range(4)]
    needed = 31
    best = float("inf")
    for number in range(len(shapes)):
        for gone in product([False, True], repeat=4):
            parts = [dropped[i] if gone[i] else options[i][number] for i in range(4)]
            if not all(gone) and sum(part.saved for part in parts) >= needed:
                best = min(best, sum(part.cost for part in parts))
    found = cheapest_equal(options, dropped, needed)
    parts = [dropped[i] if number is None else options[i][number] for i, number in enumerate(found)]
    assert sum(part.saved for part in parts) >= needed
    assert sum(part.cost for part in parts) == pytest.approx(best)
    assert len(set(found) - {None}) == 1


def test_equal_shapes_leave_a_layer() -> None:
    free = [Option(10, 0.0)] * 3
    assert cheapest_equal([[Option(0, 0.0), Option(5, 1.0)]] * 3, free, 25).count(None) == 2
    with pytest.raises(ValueError, match="saves 30"):
        cheapest_equal([[Option(0, 0.0), Option(5, 1.0)]] * 3, free, 30)


def test_where_no_layer_may_be_dropped_equal_shapes_drop_none() -> None:
    options = [[Option(0, 0.0), Option(5, 1.0)]] * 3
    assert cheapest_equal(options, [], 15) == [1, 1, 1]
    with pytest.raises(ValueError, match="saves 16"):
        cheapest_equal(options, [], 16)
