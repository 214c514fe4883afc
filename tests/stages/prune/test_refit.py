"""The refit against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from roots_compress.errors import StageError
from roots_compress.stages.prune.refit import refit, relative_error, rows_needed

ROWS, CHANNELS, OUTPUTS = 200, 12, 5
KEPT = [0, 2, 3, 7, 8, 9, 11]


def make(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return correlated input rows and a weight."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(CHANNELS, CHANNELS))
    return rng.normal(size=(ROWS, CHANNELS)) @ mixing, rng.normal(size=(OUTPUTS, CHANNELS))


def test_without_damping_it_is_least_squares() -> None:
    rows, weight = make()
    expected = np.linalg.lstsq(rows[:, KEPT], rows @ weight.T, rcond=None)[0].T
    gram = torch.from_numpy(rows.T @ rows)
    found = refit(torch.from_numpy(weight), gram, KEPT, damping=1e-12)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_damping_is_a_ridge_towards_the_old_weights() -> None:
    rows, weight = make()
    damping = 0.3
    ridge = np.sqrt(damping * (rows[:, KEPT] ** 2).sum(0).mean())
    system = np.concatenate([rows[:, KEPT], ridge * np.eye(len(KEPT))])
    target = np.concatenate([rows @ weight.T, ridge * weight[:, KEPT].T])
    expected = np.linalg.lstsq(system, target, rcond=None)[0].T
    gram = torch.from_numpy(rows.T @ rows)
    found = refit(torch.from_numpy(weight), gram, KEPT, damping=damping)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-10)


def test_it_beats_leaving_the_weights_alone() -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    gram = rows.T @ rows
    found = refit(weight, gram, KEPT, damping=1e-3)
    assert relative_error(weight, found, gram, KEPT) < 0.9 * relative_error(
        weight, weight[:, KEPT], gram, KEPT
    )


def test_keeping_everything_changes_nothing() -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    found = refit(weight, rows.T @ rows, range(CHANNELS), damping=1e-3)
    torch.testing.assert_close(found, weight, rtol=1e-9, atol=1e-12)


def test_a_channel_that_is_always_zero_keeps_its_weights() -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    rows[:, 7] = 0
    found = refit(weight, rows.T @ rows, KEPT, damping=1e-3)
    torch.testing.assert_close(found[:, KEPT.index(7)], weight[:, 7])
    assert torch.isfinite(found).all()


def test_a_dead_projection_keeps_its_weights() -> None:
    weight = torch.from_numpy(make()[1])
    gram = torch.zeros(CHANNELS, CHANNELS, dtype=torch.float64)
    assert torch.equal(refit(weight, gram, KEPT, damping=1e-3), weight[:, KEPT])
    assert relative_error(weight, weight[:, KEPT], gram, KEPT) == 0.0


def test_fewer_rows_than_channels_stay_finite() -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    found = refit(weight, rows[:3].T @ rows[:3], KEPT, damping=1e-2)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 10 * weight.abs().max()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(bad: float) -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    gram = rows.T @ rows
    gram[0, 0] = bad
    with pytest.raises(StageError, match="not finite"):
        refit(weight, gram, KEPT, damping=1e-3)


def test_the_relative_error_is_that_of_the_outputs() -> None:
    rows, weight = (torch.from_numpy(array) for array in make())
    found = refit(weight, rows.T @ rows, KEPT, damping=1e-3)
    outputs = rows @ weight.T
    expected = (outputs - rows[:, KEPT] @ found.T).norm() / outputs.norm()
    assert relative_error(weight, found, rows.T @ rows, KEPT) == pytest.approx(float(expected))


def test_a_refit_needs_two_rows_for_each_channel() -> None:
    assert rows_needed(1152) == 2304
