"""The optimal brain surgeon against numpy's least squares, one subset at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from roots_compress.errors import StageError
from roots_compress.stages.prune.plan import best_of_each
from roots_compress.stages.prune.refit import refit
from roots_compress.stages.prune.surgeon import Operation, narrowing, removal_scores, shapes

ROWS, CHANNELS, OUTPUTS = 200, 12, 5
TINY = 1e-10
PAIRS = [(0, 1), (0, 2), (1, 2)]


def make(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return correlated input rows and a weight."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(CHANNELS, CHANNELS))
    return rng.normal(size=(ROWS, CHANNELS)) @ mixing, rng.normal(size=(OUTPUTS, CHANNELS))


def begin(units: int, seed: int = 0, damping: float = TINY) -> Operation:
    rows, weight = make(seed)
    return Operation.begin(torch.from_numpy(weight), torch.from_numpy(rows.T @ rows), units, damping=damping)


def least_squares_error(kept: Sequence[int], seed: int = 0) -> float:
    """Return the squared error that the best refit of these channels leaves."""
    rows, weight = make(seed)
    fitted = np.linalg.lstsq(rows[:, kept], rows @ weight.T, rcond=None)[0]
    return float(((rows[:, kept] @ fitted - rows @ weight.T) ** 2).sum())


def channels_of(units: Sequence[int], size: int) -> list[int]:
    return [unit * size + offset for unit in units for offset in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_costs_are_what_a_refit_without_the_unit_loses(size: int) -> None:
    units = CHANNELS // size
    found = begin(units).costs()
    for unit in range(units):
        kept = channels_of([other for other in range(units) if other != unit], size)
        assert float(found[unit]) == pytest.approx(least_squares_error(kept), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_what_is_left_is_the_refit_of_what_stays(size: int) -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    operation = begin(CHANNELS // size, damping=0.1).without(torch.tensor([0, 4])).without(torch.tensor([2]))
    kept = channels_of(operation.units.tolist(), size)
    assert len(kept) == CHANNELS - 3 * size
    # The surgeon's ridge is set once, by all channels; the refit's by those that stay.
    gram = rows.T @ rows
    ridge = 0.1 * gram.diagonal().mean() / gram[kept][:, kept].diagonal().mean()
    torch.testing.assert_close(operation.weight, refit(weight, gram, kept, damping=float(ridge)))


def test_the_lost_error_is_that_of_least_squares() -> None:
    operation = begin(CHANNELS).without(torch.tensor([1, 5, 6])).without_cheapest(2)
    assert operation.lost == pytest.approx(least_squares_error(operation.units.tolist()), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_removal_follows_the_greedy_search_over_refits(seed: int) -> None:
    left, order = list(range(CHANNELS)), []
    while len(left) > 4:
        worst = min(left, key=lambda each: least_squares_error([c for c in left if c != each], seed))
        left.remove(worst)
        order.append(worst)
    scores = removal_scores(begin(CHANNELS, seed), 4, at_once=1)
    assert scores.argsort().tolist()[: len(order)] == order
    assert sorted(scores.argsort().tolist()[len(order) :]) == left


def test_removal_in_batches_leaves_as_many_as_asked() -> None:
    scores = removal_scores(begin(CHANNELS), 5, at_once=3)
    assert (scores.unique(return_counts=True)[1] == torch.tensor([3, 3, 1, 1, 1, 1, 1, 1])).all()


def test_the_surgeon_finds_duplicates_that_no_single_channel_shows() -> None:
    rows, weight = make()
    rows[:, 6:] = rows[:, :6]
    operation = Operation.begin(
        torch.from_numpy(weight), torch.from_numpy(rows.T @ rows), CHANNELS, damping=1e-6
    )
    scores = removal_scores(operation, 6, at_once=1)
    stays = scores.argsort(descending=True)[:6] % 6
    assert sorted(stays.tolist()) == list(range(6)), "one of each pair stays"


def test_the_curve_names_every_multiple_and_rises() -> None:
    curve = {len(each.units): each.lost for each in narrowing(begin(CHANNELS), 5)}
    assert list(curve) == [12, 10, 5]
    assert 0 == curve[12] < curve[10] < curve[5]


def head_errors(operation: Operation, queries: int) -> dict[tuple[int, ...], float]:
    return {kept: cut.lost for kept, cut in shapes(operation, (1, 1), (queries,))}


def test_a_shape_says_which_heads_it_keeps() -> None:
    whole = begin(3)
    *_, (_, narrow) = ((kept, cut) for kept, cut in shapes(whole, (1, 1), (2,)) if kept == (2, 2))
    (lost,) = set(range(3)) - set(whole.without_cheapest(1).units.tolist())
    assert narrow.units.tolist() == [head for head in range(6) if head // 2 != lost]


def test_head_errors_are_those_of_the_refits_they_name() -> None:
    errors = head_errors(begin(3), 2)
    assert set(errors) == {(groups, queries) for groups in (3, 2, 1) for queries in (2, 1)}
    assert errors[3, 2] == 0.0

    def heads_error(heads: Sequence[int]) -> float:
        return least_squares_error(channels_of(heads, 2))

    two_groups = min(heads_error([*range(2 * a, 2 * a + 2), *range(2 * b, 2 * b + 2)]) for a, b in PAIRS)
    assert errors[2, 2] == pytest.approx(two_groups, rel=1e-5)
    every = [heads_error([a, 2 + b, 4 + c]) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert min(every) * (1 - 1e-5) <= errors[3, 1] < max(every)
    assert errors[1, 1] > errors[2, 1] > errors[2, 2]


@pytest.mark.parametrize("seed", range(6))
def test_the_query_heads_that_leave_are_those_that_were_priced(seed: int) -> None:
    rows, weight = make(seed)
    weight[:, :6] *= 0.3  # All heads of a weak group would leave before any of the other.
    gram = torch.from_numpy(rows.T @ rows)

    def operation(units: int) -> Operation:
        return Operation.begin(torch.from_numpy(weight), gram, units, damping=1e-6)

    scores = removal_scores(operation(6), 2, at_once=1, groups=2)
    gone = set(range(6)) - set(best_of_each(scores, 2, 1))
    found = operation(6).without(torch.tensor(sorted(gone))).lost
    assert found == pytest.approx(head_errors(operation(2), 3)[2, 1], rel=1e-6)


def test_a_dead_input_costs_nothing_and_stays_finite() -> None:
    weight = torch.from_numpy(make()[1])
    operation = Operation.begin(weight, torch.zeros(CHANNELS, CHANNELS), CHANNELS, damping=1e-2)
    scores = removal_scores(operation, 4, at_once=4)
    assert scores.isfinite().all()
    assert int((scores > scores.min()).sum()) >= 4
    *_, narrowest = narrowing(operation, 4)
    assert narrowest.lost == pytest.approx(0.0, abs=1e-50)


def test_a_gram_matrix_that_is_not_finite_is_refused() -> None:
    gram = torch.eye(CHANNELS)
    gram[3, 3] = torch.inf
    with pytest.raises(StageError, match="not finite"):
        Operation.begin(torch.ones(OUTPUTS, CHANNELS), gram, CHANNELS, damping=1e-2)
