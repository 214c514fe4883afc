"""Which format each site gets."""

from __future__ import annotations

from typing import Literal

import pytest

from roots_compress.quantize.config import QuantizeConfig
from roots_compress.quantize.plan import SiteCost, eight_bit_sites, int8_format


@pytest.mark.parametrize(
    ("activations", "error", "expected"),
    [
        ("auto", 0.03, "w8a8"),
        ("auto", 0.031, "w8"),
        ("always", 10.0, "w8a8"),
        ("never", 0.0, "w8"),
    ],
)
def test_int8_inputs_are_quantized_where_it_holds_up(
    activations: Literal["auto", "always", "never"], error: float, expected: str
) -> None:
    assert int8_format(QuantizeConfig(activations=activations), error) == expected


COSTS = {
    "cheap": SiteCost(four_bit=0.01, eight_bit=0.0, weights=100),
    "large": SiteCost(four_bit=0.5, eight_bit=0.0, weights=1000),
    "dear": SiteCost(four_bit=0.4, eight_bit=0.0, weights=100),
    "hopeless": SiteCost(four_bit=0.9, eight_bit=0.9, weights=100),
}


def test_eight_bits_go_where_they_gain_most_per_weight() -> None:
    assert eight_bit_sites(COSTS, 0.1) == {"dear"}
    assert eight_bit_sites(COSTS, 0.9) == {"dear", "large"}


def test_no_site_and_every_site_may_have_eight_bits() -> None:
    assert eight_bit_sites(COSTS, 0.0) == set()
    assert eight_bit_sites(COSTS, 1.0) == set(COSTS)
