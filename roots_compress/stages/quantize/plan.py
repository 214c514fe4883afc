"""Chooses the storage format of each input's matrices, from rounding costs and the stage's settings.

Bits are allocated by measured sensitivity, as in HAWQ-V3 (Yao et al. 2020, arXiv:2011.10680).
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
"""Most steps into which a budget is divided. With larger steps, sizes are rounded up, so that the budget
holds."""


@dataclass(frozen=True)
class InputCost:
    """The cost of rounding an input and its matrices, and the price of higher precision."""

    loss: float
    """Expected increase of the model's loss, in nats a prediction."""
    price: int
    """Price of 8 bits instead of 4: bytes. Price of an input in floating point: products a token."""


@dataclass(frozen=True)
class RoundingPlan:
    """The decisions before folding and rounding.

    An input is named by its first consumer's full name.
    """

    usual: Format
    """The format of all matrices except those in higher precision."""
    scales: Mapping[str, Tensor]
    """Scales to fold, one a channel, for the inputs where that helps."""
    higher: Collection[str]
    """Inputs whose matrices stay in higher precision, because the usual format would cost too much."""
    expected_loss: float | None = None
    """Expected cost of the usual format for the other inputs, in nats a prediction; None: not measured."""
    usual_share: float = 1.0
    """Share of the layers' prices (see `InputCost`) that belongs to inputs in the usual format."""

    @property
    def folded(self) -> int:
        """The number of scales to fold; inputs of blocks that share a norm share one."""
        return len(set(map(id, self.scales.values())))

    def format_of(self, name: str) -> Format:
        """Return the storage format of an input's matrices."""
        return "w8" if name in self.higher else self.usual


def format_of_tables(usual: Format) -> Format:
    """Return the format of the table and the projection of per-layer embeddings."""
    return "w4" if usual == "w4" else "w8"


def usual_format(scheme: str, products: Products) -> Format:
    """Return the format of all matrices except those in higher precision, which get `w8`."""
    if scheme == "int4":
        return "w4"
    return "w8" if products == "float" else "w8a8"


def higher_within_loss(costs: Mapping[str, InputCost], allowed_loss: float) -> set[str]:
    """Return the inputs to keep in higher precision, so that the losses of the others stay within a bound.

    Those with the most loss for their price come first (Dantzig 1957, "Discrete-variable extremum problems"),
    which is within one input of the least price.
    """
    by_worth = sorted(costs, key=lambda name: costs[name].loss / costs[name].price, reverse=True)
    left = sum(cost.loss for cost in costs.values())
    higher = set[str]()
    for name in by_worth:
        if left <= allowed_loss:
            break
        higher.add(name)
        left -= costs[name].loss
    return higher


def higher_within_bytes(costs: Mapping[str, InputCost], budget_bytes: int) -> set[str]:
    """Return the inputs whose matrices stay in 8 bits, to avoid the most loss within a budget of bytes.

    A 0/1 knapsack, solved by dynamic programming over the bytes spent, in steps of their common divisor
    (Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", chapter 2).

    Args:
        costs: those of each input; losses are not negative.
        budget_bytes: the most extra bytes of 8 bits over 4, in total.
    """
    names = [name for name, cost in costs.items() if cost.price <= budget_bytes]
    step = max(math.gcd(*(costs[name].price for name in names)), -(-budget_bytes // MOST_STEPS), 1)
    steps = budget_bytes // step
    sizes = [-(-costs[name].price // step) for name in names]
    avoided = np.zeros(steps + 1)  # The most loss that can be avoided within so many steps.
    taken = np.zeros((len(names), steps + 1), dtype=bool)
    for index, (name, size) in enumerate(zip(names, sizes, strict=True)):
        if size > steps:
            continue
        with_input = avoided[: steps + 1 - size] + costs[name].loss
        taken[index, size:] = with_input > avoided[size:]
        avoided[size:] = np.maximum(avoided[size:], with_input)
    chosen, left = set[str](), steps
    for index in reversed(range(len(names))):
        if taken[index, left]:
            chosen.add(names[index])
            left -= sizes[index]
    return chosen
