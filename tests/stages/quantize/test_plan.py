"""Which format the matrices of each input get."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from roots_compress.stages.quantize.plan import (
    InputCost,
    RoundingPlan,
    higher_within_bytes,
    higher_within_loss,
)


def test_inputs_are_kept_until_the_rest_costs_no_more_than_is_allowed() -> None:
    """Of all sets that leave so little, the one chosen is the cheapest, but for at most one input."""
    generator = random.Random(0)
    for _ in range(50):
        costs = {
            f"input {number}": InputCost(generator.random(), generator.randint(1, 30)) for number in range(8)
        }
        allowed = generator.random() * 4
        chosen = higher_within_loss(costs, allowed)
        left = sum(cost.loss for name, cost in costs.items() if name not in chosen)
        assert left <= allowed
        cheapest = min(
            sum(costs[name].price for name in names)
            for count in range(len(costs) + 1)
            for names in itertools.combinations(costs, count)
            if sum(cost.loss for name, cost in costs.items() if name not in names) <= allowed
        )
        spent = sum(costs[name].price for name in chosen)
        assert spent <= cheapest + max(cost.price for cost in costs.values())


def test_nothing_is_kept_where_all_of_it_is_allowed() -> None:
    costs = {"one": InputCost(0.1, 100), "other": InputCost(0.2, 50)}
    assert higher_within_loss(costs, 0.31) == set()
    assert higher_within_loss(costs, 0.11) == {"other"}
    assert higher_within_loss(costs, 0.0) == set(costs)


def test_eight_bits_are_given_out_as_exhaustive_search_would() -> None:
    generator = random.Random(0)
    for _ in range(50):
        costs = {
            f"input {number}": InputCost(generator.random(), 8 * generator.randint(1, 30))
            for number in range(8)
        }
        budget = generator.randint(0, 8 * 100)
        best = max(
            sum(costs[name].loss for name in names)
            for count in range(len(costs) + 1)
            for names in itertools.combinations(costs, count)
            if sum(costs[name].price for name in names) <= budget
        )
        chosen = higher_within_bytes(costs, budget)
        assert sum(costs[name].price for name in chosen) <= budget
        assert sum(costs[name].loss for name in chosen) == pytest.approx(best)


def test_a_budget_of_many_steps_holds_and_is_nearly_used() -> None:
    generator = random.Random(0)
    costs = {f"input {number}": InputCost(1.0, generator.randint(10**6, 2 * 10**6)) for number in range(60)}
    spent = sum(costs[name].price for name in higher_within_bytes(costs, 40 * 10**6))
    assert 38 * 10**6 < spent <= 40 * 10**6


def test_no_site_and_every_site_may_have_eight_bits() -> None:
    costs = {"one": InputCost(0.1, 100), "other": InputCost(0.2, 50)}
    assert higher_within_bytes(costs, 0) == set()
    assert higher_within_bytes(costs, 49) == set()
    assert higher_within_bytes(costs, 150) == set(costs)


def test_a_site_that_loses_nothing_stays_in_four_bits() -> None:
    assert higher_within_bytes({"dead": InputCost(0.0, 10), "alive": InputCost(0.1, 10)}, 100) == {"alive"}


def test_a_scale_of_a_shared_norm_counts_once() -> None:
    norm, own = torch.ones(4), torch.ones(4)
    plan = RoundingPlan("w8", {"attn.q_proj": norm, "mlp.up_proj": norm, "mlp.down_proj": own}, ())
    assert plan.folded == 2
