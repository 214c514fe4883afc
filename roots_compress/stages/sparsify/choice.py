"""Chooses the number of blocks for each layer: the fewest that a bound on perplexity allows.

Layers differ in how far back they look. The cost of the fewest blocks, in nats a token, is measured for each
layer alone, on the dense model. Then blocks are given back where they cost most: the costliest layer's are
doubled, which is assumed to halve its cost, and so on until all layers are dense. This gives a sequence of
models, each with more blocks than the one before. Bisection finds the first that keeps the bound; each model
tried is measured as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace

Blocks = tuple[int | None, ...]
"""Blocks of each layer; None for dense attention."""


def counts(fewest: int, full: int) -> tuple[int, ...]:
    """Return the possible numbers of blocks: doubled from the fewest on, below all blocks of a text."""
    found = [fewest]
    while 2 * found[-1] < full:
        found.append(2 * found[-1])
    return tuple(found)


def succession(costs: Sequence[float], allowed: Sequence[int]) -> list[Blocks]:
    """Return models from the fewest blocks to dense: each doubles one layer's blocks, or makes it dense."""
    given: list[int | None] = [allowed[0]] * len(costs)
    found: list[Blocks] = [tuple(given)]
    # At equal cost, the layer with fewer blocks is first, and then the earlier one.
    waiting = [(-max(cost, 0.0), 0, layer) for layer, cost in enumerate(costs)]
    heapify(waiting)
    while given != [None] * len(given):
        cost, rung, layer = waiting[0]
        more = allowed[rung + 1] if rung + 1 < len(allowed) else None
        given[layer] = more
        found.append(tuple(given))
        # A dense layer is finished: it comes after all others.
        heapreplace(waiting, (1.0 if more is None else cost / 2, rung + 1, layer))
    return found


def first_within(models: Sequence[Blocks], keeps: Callable[[Blocks], bool]) -> Blocks:
    """Return the first model that keeps a bound; the last one always does.

    If a model keeps the bound, all with more blocks are assumed to keep it.
    """
    low, high = 0, len(models) - 1
    while low < high:
        middle = (low + high) // 2
        if keeps(models[middle]):
            high = middle
        else:
            low = middle + 1
    return models[high]
