"""All generators together, and how many cases each makes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bad_inputs import checkpoints, ggufs, graphs, lines, recipes, runs, texts, weights
from tests.bad_inputs.cases import Generator

GENERATORS: tuple[Generator, ...] = (
    *recipes.GENERATORS,
    *checkpoints.GENERATORS,
    *weights.GENERATORS,
    *ggufs.GENERATORS,
    *graphs.GENERATORS,
    *texts.GENERATORS,
    *runs.GENERATORS,
    *lines.GENERATORS,
)


def planned(generators: Sequence[Generator], count: int) -> list[tuple[Generator, int]]:
    """Return which cases to make: every generator in turn, each no more often than it has variants.

    Args:
        generators: what makes them.
        count: how many cases in all, if the generators have as many.
    """
    cases: list[tuple[Generator, int]] = []
    for number in range(max((generator.variants for generator in generators), default=0)):
        cases += [(generator, number) for generator in generators if number < generator.variants]
        if len(cases) >= count:
            break
    return cases[:count]
