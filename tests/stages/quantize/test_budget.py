"""A budget that no choice of layers can meet: what is said of it."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.errors import GateMissedError
from roots_compress.stages.quantize.budget import check_budget, least_bytes
from tests.tiny import tiny_layer, tiny_model

WIDE: dict[str, Any] = {"hidden_size": 128, "layers": [tiny_layer(head_dim=32, intermediate_size=128)]}
"""Its inputs fill groups of every size."""


@pytest.mark.parametrize("group_size", [64, 128])
def test_narrow_inputs_are_told_of_smaller_groups(group_size: Literal[64, 128]) -> None:
    """Inputs of 32 and 48 leave most of a larger group empty."""
    model = tiny_model()
    fewest = least_bytes(model, QuantizeConfig(scheme="int4", group_size=32))
    with pytest.raises(GateMissedError, match=f"set group_size to 32, with which it takes {fewest:,},"):
        check_budget(model, QuantizeConfig(scheme="int4", group_size=group_size, max_bytes=fewest))
    check_budget(model, QuantizeConfig(scheme="int4", group_size=32, max_bytes=fewest))


def test_wide_inputs_are_told_of_larger_groups() -> None:
    with pytest.raises(GateMissedError, match="bytes, set group_size to 128, with which"):
        check_budget(tiny_model(**WIDE), QuantizeConfig(scheme="int4", group_size=32, max_bytes=1))


def test_nothing_is_said_of_groups_where_no_others_take_less() -> None:
    with pytest.raises(GateMissedError, match="bytes, or prune the model first"):
        check_budget(tiny_model(), QuantizeConfig(scheme="int4", group_size=32, max_bytes=1))
