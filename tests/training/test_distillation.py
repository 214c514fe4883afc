"""The distillation losses against plain references, and the objective's treatment of the teacher."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.training import objective as objective_module
from roots_compress.training.config import DistillLossConfig
from roots_compress.training.distillation import Distillation, hidden_distance, kl_divergence, matched_layers
from roots_compress.training.objective import CrossEntropy
from tests.tiny import tiny_layer, tiny_model
from tests.training.text import as_batch, windows

Direction = Literal["forward", "reverse"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")


def logits(seed: int, positions: int = 5, vocab: int = 11) -> torch.Tensor:
    return (
        torch.randn(positions, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kl_to_itself_is_zero(direction: Direction) -> None:
    same = logits(0)
    assert kl_divergence(same, same, temperature=2.0, direction=direction).abs().max() < 1e-12


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kl_equals_torchs_batchmean(direction: Direction) -> None:
    student, teacher = logits(0), logits(1)
    log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    expected, target = (log_student, log_teacher) if direction == "forward" else (log_teacher, log_student)
    reference = F.kl_div(expected, target, log_target=True, reduction="batchmean")
    ours = kl_divergence(student, teacher, temperature=1.0, direction=direction).mean()
    torch.testing.assert_close(ours, reference)


def test_kl_directions_differ() -> None:
    student, teacher = logits(0), logits(1)
    forward, reverse = (kl_divergence(student, teacher, temperature=1.0, direction=d) for d in DIRECTIONS)
    assert not torch.allclose(forward, reverse)
    torch.testing.assert_close(forward, kl_divergence(teacher, student, temperature=1.0, direction="reverse"))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kl_gradient_matches_finite_differences(direction: Direction) -> None:
    student = logits(0).requires_grad_()
    teacher = logits(1)
    assert torch.autograd.gradcheck(
        lambda x: kl_divergence(x, teacher, temperature=1.7, direction=direction).sum(), (student,)
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kl_scales_with_temperature_squared(direction: Direction) -> None:
    student, teacher = logits(0), logits(1)
    hot = kl_divergence(student, teacher, temperature=3.0, direction=direction)
    cooled = kl_divergence(student / 3, teacher / 3, temperature=1.0, direction=direction)
    torch.testing.assert_close(hot, 9 * cooled)


def test_kl_of_far_apart_half_precision_logits_is_finite() -> None:
    student = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    for direction in DIRECTIONS:
        divergence = kl_divergence(student, -student, temperature=1.0, direction=direction)
        assert divergence.dtype == torch.float32
        assert divergence.isfinite().all()


def test_hidden_distance_is_relative_to_the_teachers_variance() -> None:
    teacher = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert hidden_distance(teacher, teacher).abs().max() == 0
    mean = teacher.mean(dim=-1, keepdim=True).expand_as(teacher)
    torch.testing.assert_close(hidden_distance(mean, teacher), torch.ones(4))
    torch.testing.assert_close(hidden_distance(7 * mean, 7 * teacher), torch.ones(4))


def test_layers_are_matched_by_depth() -> None:
    assert matched_layers(3, 6) == (2, 4, 6)
    assert matched_layers(2, 2) == (1, 2)
    assert matched_layers(4, 6)[-1] == 6


def test_a_student_equal_to_its_teacher_has_only_cross_entropy() -> None:
    teacher = tiny_model()
    student = copy.deepcopy(teacher)
    config = DistillLossConfig(hidden_weight=1.0)
    loss = Distillation(teacher, student, config, seed=0)(student, as_batch(windows()))
    assert float(loss.parts["kl"]) == pytest.approx(0, abs=1e-5)
    assert float(loss.parts["hidden"]) == 0
    assert float(loss.parts["cross_entropy"]) > 1


def test_the_objective_is_the_weighted_mean_of_plain_terms() -> None:
    teacher, student, batch = tiny_model(0), tiny_model(1), as_batch(windows())
    config = DistillLossConfig(cross_entropy_weight=0.3, kl_weight=0.7, temperature=2.0)
    loss = Distillation(teacher, student, config, seed=0)(student, batch)

    mask = batch.labels_BT[:, 1:] != IGNORED_LABEL
    rows = [
        m(batch.input_ids_BT, segment_ids=batch.segment_ids_BT).logits[:, :-1][mask]
        for m in (student, teacher)
    ]
    cross_entropy = F.cross_entropy(rows[0], batch.labels_BT[:, 1:][mask])
    softened = [(row / 2).log_softmax(-1) for row in rows]
    kl = 4 * F.kl_div(softened[0], softened[1], log_target=True, reduction="batchmean")
    torch.testing.assert_close(loss.parts["cross_entropy"], cross_entropy.detach())
    torch.testing.assert_close(loss.total, 0.3 * cross_entropy + 0.7 * kl)


def test_padding_changes_nothing() -> None:
    teacher, student, packed = tiny_model(0), tiny_model(1), windows()
    objective = Distillation(teacher, student, DistillLossConfig(hidden_weight=1.0), seed=0)

    def pad(array: np.ndarray, value: int) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, 5)), constant_values=value)

    padded = PackedWindows(
        pad(packed.input_ids, 2), pad(packed.labels, IGNORED_LABEL), pad(packed.segment_ids, 9)
    )
    plain, with_padding = (objective(student, as_batch(text)) for text in (packed, padded))
    for name, value in plain.parts.items():
        torch.testing.assert_close(with_padding.parts[name], value)


def test_only_the_student_gets_gradients() -> None:
    teacher, student = tiny_model(0).train(), tiny_model(1).train()
    objective = Distillation(teacher, student, DistillLossConfig(), seed=0).train()
    assert not teacher.training
    objective(student, as_batch(windows())).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_teacher_in_train_mode_is_refused() -> None:
    teacher, student = tiny_model(0), tiny_model(1)
    objective = Distillation(teacher, student, DistillLossConfig(), seed=0)
    teacher.train()
    with pytest.raises(AssertionError):
        objective(student, as_batch(windows()))


def test_hidden_states_of_another_width_go_through_trained_maps() -> None:
    teacher, student = tiny_model(0), tiny_model(1, hidden_size=24, layers=[tiny_layer()])
    objective = Distillation(teacher, student, DistillLossConfig(hidden_weight=1.0), seed=3)
    again = Distillation(teacher, student, DistillLossConfig(hidden_weight=1.0), seed=3)
    assert [p.shape for p in objective.maps.parameters()] == [(32, 24)]
    learned = next(objective.maps.parameters())
    assert torch.equal(learned, next(again.maps.parameters()))
    objective(student, as_batch(windows())).total.backward()
    assert learned.grad is not None


def test_without_the_teachers_terms_it_is_plain_cross_entropy() -> None:
    teacher, student, batch = tiny_model(0), tiny_model(1), as_batch(windows())
    config = DistillLossConfig(cross_entropy_weight=1.0, kl_weight=0.0)
    loss = Distillation(teacher, student, config, seed=0)(student, batch)
    torch.testing.assert_close(loss.total, CrossEntropy()(student, batch).total)
    assert set(loss.parts) == {"cross_entropy"}


def test_chunked_logits_give_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, batch = tiny_model(0), as_batch(windows())
    results = []
    for budget in (1 << 24, 7 * 300):
        monkeypatch.setattr(objective_module, "LOGITS_BUDGET", budget)
        student = tiny_model(1).train()
        loss = Distillation(teacher, student, DistillLossConfig(), seed=0)(student, batch)
        loss.total.backward()
        results.append((loss.total.detach(), [p.grad for p in student.parameters()]))
    torch.testing.assert_close(results[1], results[0])


def test_a_prompt_is_not_scored() -> None:
    model, packed = tiny_model(), windows(unscored=0.0)
    labels = packed.labels.copy()
    labels[:, :8] = IGNORED_LABEL
    scored = as_batch(replace(packed, labels=labels))
    mean = CrossEntropy()(model, scored).total
    logits_NV = model(scored.input_ids_BT, segment_ids=scored.segment_ids_BT).logits[:, 8:-1].flatten(0, 1)
    torch.testing.assert_close(mean, F.cross_entropy(logits_NV, scored.input_ids_BT[:, 9:].flatten()))
