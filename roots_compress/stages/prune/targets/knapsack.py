"""Chooses each layer's shape so that a target is met at the least cost. Pure functions.

A layer's options each save something (parameters, or time) and cost some divergence; one is chosen for every
layer. Savings and costs of different layers are assumed to add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

FINEST_GRID = 20_000
"""Most steps into which the savings are divided; fewer steps would lose exactness sooner."""


@dataclass(frozen=True)
class Option:
    """A possible shape of a layer."""

    saved: int
    """Its savings, in whole units."""
    cost: float
    """Its cost, comparable between layers; at least 0, and finite."""


def cheapest(options: Sequence[Sequence[Option]], needed: int) -> list[int]:
    """Return the number of each layer's option, so that together they save enough at the least cost.

    The multiple-choice knapsack problem, solved exactly by dynamic programming over the savings
    (Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", chapter 11), as SPDY (Frantar and Alistarh
    2022, arXiv:2201.13096) does it for the layers of a network. Savings are counted in units of their
    greatest common divisor. If that gives more than `FINEST_GRID` steps, a coarser unit is used and savings
    are rounded down, so that the choice always saves enough. If rounding hides the few choices that do, close
    to the largest possible savings, every layer saves the most it can.

    Raises:
        ValueError: no choice saves enough.
    """
    common = gcd(*(option.saved for layer in options for option in layer)) or 1
    unit = max(common, ceil(needed / FINEST_GRID))
    steps = ceil(needed / unit)
    reachable = np.arange(steps + 1)
    # least[s]: the cost of saving at least s with the layers so far.
    least: NDArray[np.float64] = np.full(steps + 1, np.inf)
    least[0] = 0.0
    chosen: list[NDArray[np.int64]] = []
    for layer in options:
        costs = np.full(steps + 1, np.inf)
        choice = np.zeros(steps + 1, dtype=np.int64)
        for number, option in enumerate(layer):
            found = least[np.maximum(reachable - option.saved // unit, 0)] + option.cost
            better = found < costs
            costs[better], choice[better] = found[better], number
        least = costs
        chosen.append(choice)
    if not np.isfinite(least[steps]):
        most = [_most_saving(layer) for layer in options]
        if sum(layer[number].saved for layer, number in zip(options, most, strict=True)) < needed:
            raise ValueError(f"no choice of options saves {needed}")
        return most
    numbers = []
    left = steps
    for layer, choice in zip(reversed(options), reversed(chosen), strict=True):
        number = int(choice[left])
        numbers.append(number)
        left = max(left - layer[number].saved // unit, 0)
    return numbers[::-1]


def cheapest_equal(
    options: Sequence[Sequence[Option]], dropped: Sequence[Option], needed: int
) -> list[int | None]:
    """Return one option's number for all remaining layers, None for removed ones.

    Args:
        options: for each layer, the same shapes in the same order.
        dropped: for each layer, savings and cost of removing it; empty if none may be removed.

    Raises:
        ValueError: no choice saves enough with a layer left.
    """
    best: tuple[float, list[int | None]] | None = None
    for number in range(len(options[0])):
        kept = [layer[number] for layer in options]
        order = sorted(range(len(dropped)), key=lambda each: dropped[each].cost - kept[each].cost)
        for count in range(len(dropped) or 1):
            gone = set(order[:count])
            parts = [dropped[each] if each in gone else kept[each] for each in range(len(kept))]
            cost = sum(part.cost for part in parts)
            if sum(part.saved for part in parts) >= needed and cost < (math.inf if best is None else best[0]):
                best = cost, [None if each in gone else number for each in range(len(kept))]
    if best is None:
        raise ValueError(f"no choice of options saves {needed}")
    return best[1]


def _most_saving(layer: Sequence[Option]) -> int:
    """Return the number of the option that saves most; among equals, of the cheapest."""
    return max(range(len(layer)), key=lambda number: (layer[number].saved, -layer[number].cost))
