"""Which shape each layer gets, so that a target is met at the least cost. Pure functions.

A layer's options each save something (parameters, or time) and cost some divergence; one is chosen for every
layer. What different layers save and cost is taken to add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

FINEST_GRID = 20_000
"""Most steps into which what is to be saved is divided; coarser ones would lose exactness sooner."""


@dataclass(frozen=True)
class Option:
    """One shape that a layer may get."""

    saved: int
    """What it saves, in whole units."""
    cost: float
    """What it costs, in units that compare between layers; at least 0, and finite."""


def cheapest(options: Sequence[Sequence[Option]], needed: int) -> list[int]:
    """Return the number of each layer's option, such that together they save enough at the least cost.

    The multiple-choice knapsack problem, solved exactly by dynamic programming over what is saved
    (Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", chapter 11), as SPDY (Frantar and Alistarh
    2022, arXiv:2201.13096) does it for the layers of a network. Savings are counted in their greatest common
    divisor; where that leaves more than `FINEST_GRID` steps, in a coarser unit and rounded down, so that what
    is chosen always saves enough. Where rounding hides the few choices that do, close to all that can be
    saved, every layer saves the most it can.

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
    """Return one option's number for all layers that stay, None for those that are dropped whole.

    Args:
        options: for each layer, the same shapes in the same order.
        dropped: for each layer, what dropping it saves and costs; empty where none may be dropped.

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
    """Return the number of the option that saves most; of several, the cheapest's."""
    return max(range(len(layer)), key=lambda number: (layer[number].saved, -layer[number].cost))
