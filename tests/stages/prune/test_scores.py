"""Each score against its plain definition."""

from __future__ import annotations

import pytest
import torch

from roots_compress.stages.prune import scores


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


def test_taylor_is_the_gradient_of_the_loss_by_a_mask_on_each_unit() -> None:
    weight, windows = random(5, 6), [random(40, 6, seed=1), random(30, 6, seed=2)]
    contributions, squares = [], torch.zeros(3, dtype=torch.float64)
    for rows in windows:
        mask = torch.ones(3, requires_grad=True)
        given = (rows * mask.repeat_interleave(2)) @ weight.T
        given.retain_grad()
        loss = given.sin().sum()
        loss.backward()
        assert given.grad is not None
        assert mask.grad is not None
        contributions.append((rows * (given.grad @ weight)).sum(0))
        squares += mask.grad.double().square()
    expected = (squares / 2).sqrt()
    torch.testing.assert_close(scores.taylor(torch.stack(contributions), 3), expected, rtol=1e-4, atol=1e-5)


def test_divergence_is_the_mean_over_tokens_of_the_divergence_of_their_distributions() -> None:
    before, after = random(7, 11).double(), random(7, 11, seed=1).double()
    p, q = before.softmax(-1), after.softmax(-1)
    expected = float((p * (p / q).log()).sum(-1).mean())
    assert scores.divergence(before, after) == pytest.approx(expected, rel=1e-5)
    assert scores.divergence(before, before + 3.0) == pytest.approx(0.0, abs=1e-6)
