"""Our scores through torch-pruning's importance interface."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp

from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.resizing import axis_of, block_at, group_of
from roots_compress.models.spec import Place
from roots_compress.stages.prune import scores
from roots_compress.stages.prune.importance import (
    ActivationImportance,
    MagnitudeImportance,
    SurgeonImportance,
    TaylorImportance,
)
from roots_compress.stages.prune.scores import pool
from roots_compress.stages.prune.surgeon import Operation, removal_scores
from tests.tiny import tiny_layer, tiny_model


def group(
    model: RootsForCausalLM, layer: int, axis: str, units: list[int] | None = None
) -> tp.dependency.Group:
    block = block_at(model, Place(layer, "mlp" if axis == "mlp_channels" else "self_attn"))
    return group_of(block, axis_of(block, axis), units)


IMPORTANCES = (MagnitudeImportance, ActivationImportance, TaylorImportance, SurgeonImportance)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_scores_are_what_torch_pruning_takes(importance: type) -> None:
    assert issubclass(importance, tp.importance.Importance)


@pytest.mark.parametrize("gated", [True, False])
def test_magnitude_counts_every_matrix_of_an_mlp_channel(gated: bool) -> None:
    model = tiny_model(gated_mlp=gated)
    mlp = model.model.layers[0].mlp
    found = MagnitudeImportance(48)(group(model, 0, "mlp_channels"))
    expected = mlp.down_proj.weight.square().sum(0) + mlp.up_proj.weight.square().sum(1)
    if gated:
        expected = expected + mlp.gate_proj.weight.square().sum(1)
    torch.testing.assert_close(found, expected.sqrt().double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_magnitude_counts_shared_keys_and_values_once(heads: int, groups: int) -> None:
    model = tiny_model(layers=[tiny_layer(num_attention_heads=heads, num_key_value_heads=groups)])
    attention = model.model.layers[0].self_attn
    found = pool(MagnitudeImportance(groups)(group(model, 0, "kv_groups")), groups)
    expected = attention.o_proj.weight.square().sum(0).view(groups, -1).sum(1)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        expected = expected + projection.weight.square().sum(1).view(groups, -1).sum(1)
    torch.testing.assert_close(found, expected.sqrt().double(), rtol=1e-5, atol=0)


def test_activation_reads_the_root_and_the_norms() -> None:
    model = tiny_model()
    norms = torch.rand(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ActivationImportance(norms)(group(model, 1, "mlp_channels"))
    weight = model.model.layers[1].mlp.down_proj.weight.double()
    torch.testing.assert_close(found, weight.norm(dim=0) * norms.sqrt())


def test_taylor_pools_to_the_scores_of_heads() -> None:
    model = tiny_model()
    contributions = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    found = TaylorImportance(contributions, 4)(group(model, 0, "kv_groups"))
    assert found.shape == (32,)
    torch.testing.assert_close(pool(found, 4), scores.taylor(contributions, 4))


def test_the_surgeon_reads_the_root_and_the_gram_matrix() -> None:
    model = tiny_model()
    rows = torch.randn(90, 32, generator=torch.Generator().manual_seed(0)).double()
    importance = SurgeonImportance(rows.T @ rows, 4, kept=2, at_once=1, damping=1e-2)
    found = pool(importance(group(model, 0, "kv_groups")), 4)
    weight = model.model.layers[0].self_attn.o_proj.weight
    operation = Operation.begin(weight, rows.T @ rows, 4, damping=1e-2)
    torch.testing.assert_close(found, removal_scores(operation, 2, at_once=1))


def test_a_part_of_a_group_gets_its_part_of_the_scores() -> None:
    model = tiny_model()
    whole = MagnitudeImportance(48)(group(model, 0, "mlp_channels"))
    torch.testing.assert_close(
        MagnitudeImportance(3)(group(model, 0, "mlp_channels", [4, 9, 30])), whole[[4, 9, 30]]
    )
