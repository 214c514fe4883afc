"""What is kept: legal widths, the best units, and the best of each group."""

from __future__ import annotations

import pytest
import torch

from roots_compress.errors import InputError
from roots_compress.stages.prune.plan import UNITS, best_of_each, best_units, kept_width


@pytest.mark.parametrize(
    ("width", "ratio", "multiple", "kept"),
    [
        (1536, 0.25, 16, 1152),
        (1536, 0.5, 16, 768),
        (1536, 0.01, 16, 1520),
        (1500, 0.1, 16, 1344),
        (48, 0.25, 16, 32),
        (3, 0.34, 1, 2),
        (30, 0.1, 1, 27),
        (30, 0.0, 16, 30),
    ],
)
def test_the_nearest_multiple_stays(width: int, ratio: float, multiple: int, kept: int) -> None:
    assert kept_width(width, ratio, multiple, key="ratio") == kept


def test_too_small_a_ratio_names_the_nearest_that_removes_something() -> None:
    with pytest.raises(InputError, match=r"nearest legal ratio is 0\.0104, which keeps 1520") as caught:
        kept_width(1536, 0.001, 16, key="ratio")
    assert caught.value.exit_code == 2
    assert kept_width(1536, 0.0104, 16, key="ratio") == 1520, "the ratio it names is legal"


def test_too_large_a_ratio_names_the_nearest_that_leaves_something() -> None:
    with pytest.raises(InputError, match=r"nearest legal ratio is 0\.9896, which keeps 16"):
        kept_width(1536, 0.999, 16, key="ratio")
    assert kept_width(1536, 0.9896, 16, key="ratio") == 16


def test_one_group_of_two_is_the_least_that_can_go() -> None:
    with pytest.raises(InputError, match=r"nearest legal head_ratio is 0\.5000, which keeps 1") as caught:
        kept_width(2, 0.2, 1, key="head_ratio")
    assert "of 2, only 1 can stay" in caught.value.message


@pytest.mark.parametrize(("width", "multiple"), [(16, 16), (12, 16), (2, 4)])
def test_a_width_without_a_smaller_multiple_is_refused(width: int, multiple: int) -> None:
    with pytest.raises(InputError, match="Lower multiple_of"):
        kept_width(width, 0.5, multiple, key="ratio")


def test_the_best_units_stay_in_their_order() -> None:
    assert best_units(torch.tensor([0.1, 5.0, 3.0, 4.0, 0.2]), 3) == [1, 2, 3]


def test_of_equal_units_the_first_stay() -> None:
    assert best_units(torch.ones(6), 2) == [0, 1]


def test_the_best_of_each_group_stay() -> None:
    assert best_of_each(torch.tensor([0.1, 0.3, 0.2, 9.0, 8.0, 7.0]), 2, 2) == [1, 2, 3, 4]


@pytest.mark.parametrize(("key", "unit"), UNITS.items())
def test_the_last_of_its_kind_stays(key: str, unit: str) -> None:
    with pytest.raises(InputError, match=f"one {unit}") as caught:
        kept_width(1, 0.5, 1, key=key)
    assert caught.value.remedy == f"Set {key} to 0."
