"""What is compared inside the models, against plain references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from roots_compress.training.distillation.signals import (
    hidden_distance,
    least_squares_maps,
    matched_layers,
    relation_divergence,
    relation_heads,
    run,
)
from tests.tiny import tiny_layer, tiny_model
from tests.training.text import as_batch, windows


def vectors(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_hidden_distance_is_relative_to_the_teachers_variance() -> None:
    teacher = vectors(0, 4, 32)
    assert hidden_distance(teacher, teacher).abs().max() == 0
    mean = teacher.mean(dim=-1, keepdim=True).expand_as(teacher)
    torch.testing.assert_close(hidden_distance(mean, teacher), torch.ones(4))
    torch.testing.assert_close(hidden_distance(7 * mean, 7 * teacher), torch.ones(4))


def test_layers_are_matched_by_depth() -> None:
    assert matched_layers(3, 6) == (1, 3, 5)
    assert matched_layers(2, 2) == (0, 1)
    assert matched_layers(4, 6)[-1] == 5


def test_signals_are_those_of_a_plain_forward_pass() -> None:
    model = tiny_model(layers=[tiny_layer(), tiny_layer(num_attention_heads=2, num_key_value_heads=1)])
    batch = as_batch(windows())
    signals = run(model, batch, states=True, projections=True)
    output = model(batch.input_ids_BT, segment_ids=batch.segment_ids_BT, output_hidden_states=True)
    assert len(signals.states) == 2
    for state, expected in zip(signals.states, output.hidden_states[1:], strict=True):
        torch.testing.assert_close(state, expected[batch.scored_BT])
    torch.testing.assert_close(model.project(signals.final_NW), output.logits[batch.scored_BT])
    last = model.model.layers[-1]
    normed = last.self_attn_pre_norm(output.hidden_states[-2])
    for name, projection in zip("qkv", signals.projections, strict=True):
        torch.testing.assert_close(projection, getattr(last.self_attn, f"{name}_proj")(normed))


def relations(x: torch.Tensor, segments: torch.Tensor, query: int, heads: int) -> np.ndarray:
    """Return the relations of one token, head by head, over the tokens it sees."""
    seen = [s for s in range(query + 1) if segments[s] == segments[query]]
    rows = []
    for head in x.numpy().reshape(len(x), heads, -1).transpose(1, 0, 2):
        products = np.array([head[query] @ head[s] for s in seen]) / np.sqrt(head.shape[1])
        rows.append(np.exp(products) / np.exp(products).sum())
    return np.array(rows)


def test_relation_divergence_equals_a_plain_loop() -> None:
    student, teacher = vectors(0, 2, 7, 12), vectors(1, 2, 7, 24)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]])
    distance = relation_divergence(student, teacher, segments, 3)
    for row in range(2):
        for query in range(7):
            p = relations(teacher[row], segments[row], query, 3)
            q = relations(student[row], segments[row], query, 3)
            expected = (p * np.log(p / q)).sum(axis=1).mean()
            assert float(distance[row, query]) == pytest.approx(expected, abs=1e-5)


def test_relations_with_oneself_do_not_diverge() -> None:
    same = vectors(0, 1, 6, 8)
    assert relation_divergence(same, same, torch.zeros(1, 6, dtype=torch.long), 2).abs().max() < 1e-6


def test_relation_gradients_are_finite_and_match_finite_differences() -> None:
    student, teacher = vectors(0, 1, 5, 4).requires_grad_(), vectors(1, 1, 5, 4)
    segments = torch.tensor([[0, 0, 1, 1, 1]])
    relation_divergence(student, teacher, segments, 2).sum().backward()
    assert student.grad is not None
    step = torch.zeros_like(student)
    step[0, 2, 1] = 1e-2
    with torch.no_grad():
        rise = relation_divergence(student + step, teacher, segments, 2).sum()
        rise -= relation_divergence(student - step, teacher, segments, 2).sum()
    assert float(rise / 2e-2) == pytest.approx(float(student.grad[0, 2, 1]), rel=1e-2)


def test_relation_heads_divide_both_widths() -> None:
    assert relation_heads(576, 576, 9) == 9
    assert relation_heads(192, 576, 9) == 8
    assert relation_heads(7, 5, 9) == 1


def test_maps_are_those_of_least_squares() -> None:
    student, teacher = vectors(0, 90, 6), vectors(1, 90, 10)
    pairs = [([student[i : i + 30]], [teacher[i : i + 30]]) for i in (0, 30, 60)]
    (found,) = least_squares_maps(pairs)
    expected = np.linalg.lstsq(student.double().numpy(), teacher.double().numpy(), rcond=None)[0].T
    assert found.shape == (10, 6)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_maps_of_states_that_never_vary_in_a_direction_are_finite() -> None:
    student = vectors(0, 40, 6)
    student[:, 3] = 0
    (found,) = least_squares_maps([([student], [vectors(1, 40, 5)])])
    assert found.isfinite().all()
    assert found[:, 3].abs().max() < 1e-6
