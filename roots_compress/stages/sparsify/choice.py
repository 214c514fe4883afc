"""How many blocks each layer gets: the fewest of all that a bound on perplexity allows.

Layers differ in how far back they look. What the fewest blocks cost in nats a token is measured for each
layer by itself, on the dense model. Then blocks are given back where they cost most: the costliest layer's
are doubled, which is taken to halve its cost, and so on until all layers are dense. That is a row of models,
each with more blocks than the one before; the first that keeps to the bound is found by bisection, each
measured as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace

Blocks = tuple[int | None, ...]
"""Of each layer; None for dense attention."""


def counts(fewest: int, full: int) -> tuple[int, ...]:
    """Return the numbers of blocks that a layer may have: doubled from the fewest on, below all of a text."""
    found = [fewest]
    while 2 * found[-1] < full:
        found.append(2 * found[-1])
    return tuple(found)


def succession(costs: Sequence[float], allowed: Sequence[int]) -> list[Blocks]:
    """Return models from the fewest blocks to none: each with one layer's doubled, or dense at last."""
    given: list[int | None] = [allowed[0]] * len(costs)
    found: list[Blocks] = [tuple(given)]
    # Of layers of equal cost, the one with fewer blocks is first, and then the earlier.
    waiting = [(-max(cost, 0.0), 0, layer) for layer, cost in enumerate(costs)]
    heapify(waiting)
    while given != [None] * len(given):
        cost, rung, layer = waiting[0]
        more = allowed[rung + 1] if rung + 1 < len(allowed) else None
        given[layer] = more
        found.append(tuple(given))
        # A dense layer is done: it comes after all others.
        heapreplace(waiting, (1.0 if more is None else cost / 2, rung + 1, layer))
    return found


def first_within(models: Sequence[Blocks], keeps: Callable[[Blocks], bool]) -> Blocks:
    """Return the first model that keeps to a bound, which the last one does.

    What a model keeps to is taken to hold for all that have more blocks.
    """
    low, high = 0, len(models) - 1
    while low < high:
        middle = (low + high) // 2
        if keeps(models[middle]):
            high = middle
        else:
            low = middle + 1
    return models[high]
