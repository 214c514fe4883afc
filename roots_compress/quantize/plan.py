"""Which storage format each site gets, from measured errors and the stage's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from roots_compress.model.quantized import Format
from roots_compress.quantize.config import QuantizeConfig


@dataclass(frozen=True)
class SiteCost:
    """What a site would lose in 4 bits and in 8, squared relative to the residual stream, and its weights."""

    four_bit: float
    eight_bit: float
    weights: int


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


def eight_bit_sites(costs: Mapping[str, SiteCost], fraction: float) -> set[str]:
    """Return the sites to keep in 8 bits: those that gain most per weight, up to a fraction of all."""
    budget = fraction * sum(cost.weights for cost in costs.values())

    def gain(name: str) -> float:
        cost = costs[name]
        return (cost.four_bit - cost.eight_bit) / cost.weights

    chosen: set[str] = set()
    for name in sorted(costs, key=gain, reverse=True):
        if costs[name].weights <= budget:
            chosen.add(name)
            budget -= costs[name].weights
    return chosen
