"""Which storage format each site gets, from what rounding costs and the stage's settings.

Bits are given out by measured sensitivity, as in HAWQ-V3 (Yao et al. 2020, arXiv:2011.10680).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from roots_compress.configs.quantize import Products
from roots_compress.models.quantized import Format

MOST_STEPS = 4096
"""Steps that a budget is divided into at most. Beyond, sizes are rounded up, so that the budget holds."""


@dataclass(frozen=True)
class SiteCost:
    """What rounding costs a site, and what sparing it would take."""

    loss: float
    """Expected increase of the model's loss, in nats per token."""
    price: int
    """For 8 bits in place of 4: bytes. For an input in floating point: products a token."""


@dataclass(frozen=True)
class RoundingPlan:
    """What is decided before anything is folded or rounded. Sites go by their full names."""

    usual: Format
    """The format of every site that is not spared."""
    scales: Mapping[str, Tensor]
    """What to fold: a scale a channel, for the sites where that gains something."""
    spared: Collection[str]
    """Sites where the usual format would cost too much."""
    expected_loss: float | None = None
    """What the usual format is expected to cost the other sites, in nats a token, where it was measured."""
    usual_share: float = 1.0
    """Of the layers' prices (see `SiteCost`), those of the sites in the usual format."""

    def format_of(self, site: str) -> Format:
        """Return a site's storage format."""
        return "w8" if site in self.spared else self.usual


def usual_format(scheme: str, products: Products) -> Format:
    """Return the format of every site that is not spared; those that are get `w8`."""
    if scheme == "int4":
        return "w4"
    return "w8" if products == "float" else "w8a8"


def spared_within_loss(costs: Mapping[str, SiteCost], allowed_loss: float) -> set[str]:
    """Return the sites to spare so that the losses of the rest add up to no more than is allowed.

    Those with the most loss for their price come first (Dantzig 1957, "Discrete-variable extremum problems"),
    which is within one site of the least price.
    """
    by_worth = sorted(costs, key=lambda name: costs[name].loss / costs[name].price, reverse=True)
    left = sum(cost.loss for cost in costs.values())
    spared = set[str]()
    for name in by_worth:
        if left <= allowed_loss:
            break
        spared.add(name)
        left -= costs[name].loss
    return spared


def spared_within_bytes(costs: Mapping[str, SiteCost], budget_bytes: int) -> set[str]:
    """Return the sites to keep in 8 bits: those whose losses add up to the most, within a number of bytes.

    A 0/1 knapsack, solved by dynamic programming over the bytes spent, in steps of their common divisor
    (Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", chapter 2).

    Args:
        costs: by site; losses are not negative.
        budget_bytes: what 8 bits may take beyond 4, in all.
    """
    names = [name for name, cost in costs.items() if cost.price <= budget_bytes]
    step = max(math.gcd(*(costs[name].price for name in names)), -(-budget_bytes // MOST_STEPS), 1)
    steps = budget_bytes // step
    sizes = [-(-costs[name].price // step) for name in names]
    spared = np.zeros(steps + 1)  # The most loss that can be spared within so many steps.
    taken = np.zeros((len(names), steps + 1), dtype=bool)
    for index, (name, size) in enumerate(zip(names, sizes, strict=True)):
        if size > steps:
            continue
        with_site = spared[: steps + 1 - size] + costs[name].loss
        taken[index, size:] = with_site > spared[size:]
        spared[size:] = np.maximum(spared[size:], with_site)
    chosen, left = set[str](), steps
    for index in reversed(range(len(names))):
        if taken[index, left]:
            chosen.add(names[index])
            left -= sizes[index]
    return chosen
