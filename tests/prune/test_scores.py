"""Each score against its plain definition."""

from __future__ import annotations

import pytest
import torch

from roots_compress.prune import scores


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_magnitude_is_the_norm_of_everything_that_leaves() -> None:
    up, gate, down = random(6, 4), random(6, 4, seed=1), random(5, 6, seed=2)
    found = scores.magnitude([up.square().sum(1), gate.square().sum(1), down.square().sum(0)])
    expected = [torch.cat((up[i], gate[i], down[:, i])).double().norm() for i in range(6)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=0)


def test_activation_is_the_norm_of_what_a_channel_contributes() -> None:
    weight, rows = random(5, 6), random(40, 6, seed=1)
    found = scores.activation(weight, rows.square().sum(0))
    expected = [torch.outer(rows[:, i], weight[:, i]).double().norm() for i in range(6)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=0)


def test_a_channel_that_is_always_zero_scores_zero() -> None:
    weight, rows = random(5, 6), random(40, 6, seed=1)
    rows[:, 2] = 0
    found = scores.activation(weight, rows.square().sum(0))
    assert found[2] == 0
    assert (found > 0).sum() == 5


def test_units_pool_neighbouring_channels_in_quadrature() -> None:
    assert scores.pool(torch.tensor([3.0, 4.0, 0.0, 2.0]), 2).tolist() == pytest.approx([5.0, 2.0])


def test_energy_shares_add_up_to_one_and_a_dead_layer_has_none() -> None:
    shares = scores.energy_shares(torch.tensor([1.0, 2.0, 2.0]))
    assert shares.tolist() == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    assert scores.energy_shares(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_block_influence_measures_the_turn_and_not_the_length() -> None:
    before = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    after = torch.tensor([[5.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert scores.block_influence(before, after).tolist() == pytest.approx([0.0, 1.0, 1 - 0.5**0.5])
