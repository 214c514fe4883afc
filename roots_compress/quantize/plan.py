"""Which storage format each site gets, from measured errors and the stage's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from roots_compress.model.quantized import Format
from roots_compress.quantize.config import QuantizeConfig

MOST_STEPS = 4096
"""Steps that a budget is divided into at most. Beyond, sizes are rounded up, so that the budget holds."""


@dataclass(frozen=True)
class SiteCost:
    """What 4 bits cost a site in place of 8."""

    loss: float
    """Expected increase of the model's loss, in nats per token."""
    saved_bytes: int
    """What 4 bits save."""


def int8_format(config: QuantizeConfig, input_error: float) -> Format:
    """Return the int8 format of a site whose outputs move by `input_error` when its input is quantized."""
    match config.activations:
        case "always":
            return "w8a8"
        case "never":
            return "w8"
        case "auto":
            return "w8a8" if input_error <= config.activation_error else "w8"
        case _ as unreachable:
            assert_never(unreachable)


def eight_bit_sites(costs: Mapping[str, SiteCost], budget_bytes: int) -> set[str]:
    """Return the sites to keep in 8 bits: those whose losses add up to the most within a number of bytes.

    A 0/1 knapsack, solved by dynamic programming over the bytes spent, in steps of their common divisor.

    Args:
        costs: by site; losses are not negative.
        budget_bytes: what 8 bits may take beyond 4, in all.
    """
    names = [name for name, cost in costs.items() if cost.saved_bytes <= budget_bytes]
    step = max(math.gcd(*(costs[name].saved_bytes for name in names)), -(-budget_bytes // MOST_STEPS), 1)
    steps = budget_bytes // step
    spared = np.zeros(steps + 1)  # The most loss that can be spared within so many steps.
    taken = np.zeros((len(names), steps + 1), dtype=bool)
    for index, name in enumerate(names):
        size = -(-costs[name].saved_bytes // step)
        if size > steps:
            continue
        with_site = spared[: steps + 1 - size] + costs[name].loss
        taken[index, size:] = with_site > spared[size:]
        spared[size:] = np.maximum(spared[size:], with_site)
    chosen, left = set[str](), steps
    for index in reversed(range(len(names))):
        if taken[index, left]:
            chosen.add(names[index])
            left -= -(-costs[names[index]].saved_bytes // step)
    return chosen
