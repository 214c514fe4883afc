"""The distillation objective: its terms, its weights, and its treatment of the teacher."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from roots_compress.configs.training import DistillLossConfig, Divergence
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows, following
from roots_compress.events import Events
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.training.batches import BatchOrder
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation import head
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.distillation.signals import hidden_distance
from roots_compress.training.distillation.teacher import cached_teacher
from roots_compress.training.distillation.teacher_cache import TeacherCache
from roots_compress.training.objective import CrossEntropy
from tests.tiny import VOCAB_SIZE, tiny_layer, tiny_model
from tests.training.text import as_batch, windows


def test_a_student_equal_to_its_teacher_has_only_cross_entropy() -> None:
    teacher = tiny_model()
    student = copy.deepcopy(teacher)
    config = DistillLossConfig(hidden_weight=1.0)
    loss = Distillation(teacher, student, config, seed=0)(student, as_batch(windows()))
    assert float(loss.parts["divergence"]) == pytest.approx(0, abs=1e-5)
    assert float(loss.parts["hidden"]) == 0
    assert float(loss.parts["cross_entropy"]) > 1


def test_the_objective_is_the_weighted_mean_of_plain_terms() -> None:
    teacher, student, batch = tiny_model(0), tiny_model(1), as_batch(windows())
    config = DistillLossConfig(cross_entropy_weight=0.3, divergence_weight=0.7, temperature=2.0)
    loss = Distillation(teacher, student, config, seed=0)(student, batch)

    mask = batch.targets_BT != IGNORED_LABEL
    rows = [m(batch.input_ids_BT, segment_ids=batch.segment_ids_BT).logits[mask] for m in (student, teacher)]
    cross_entropy = F.cross_entropy(rows[0], batch.targets_BT[mask])
    softened = [(row / 2).log_softmax(-1) for row in rows]
    kl = 4 * F.kl_div(softened[0], softened[1], log_target=True, reduction="batchmean")
    torch.testing.assert_close(loss.parts["cross_entropy"], cross_entropy.detach())
    torch.testing.assert_close(loss.total, 0.3 * cross_entropy + 0.7 * kl)


def test_padding_changes_nothing() -> None:
    teacher, student, packed = tiny_model(0), tiny_model(1), windows()
    config = DistillLossConfig(hidden_weight=1.0, relation_weight=1.0)
    objective = Distillation(teacher, student, config, seed=0)

    def pad(array: np.ndarray, value: int) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, 5)), constant_values=value)

    padded = PackedWindows(
        pad(packed.input_ids, 2), pad(packed.targets, IGNORED_LABEL), pad(packed.segment_ids, 9)
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
    config = DistillLossConfig(cross_entropy_weight=1.0, divergence_weight=0.0)
    loss = Distillation(teacher, student, config, seed=0)(student, batch)
    torch.testing.assert_close(loss.total, CrossEntropy()(student, batch).total)
    assert set(loss.parts) == {"cross_entropy"}


def test_chunked_logits_give_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, batch = tiny_model(0), as_batch(windows())
    results = []
    for projected, scored in ((1 << 24, 1 << 24), (14 * 300, 4 * 300)):
        monkeypatch.setattr(head, "PROJECTED", projected)
        monkeypatch.setattr(head, "SCORED", scored)
        student = tiny_model(1).train()
        loss = Distillation(teacher, student, DistillLossConfig(), seed=0)(student, batch)
        loss.total.backward()
        results.append((loss.total.detach(), [p.grad for p in student.parameters()]))
    torch.testing.assert_close(results[1], results[0])


def test_the_teachers_head_is_asked_once_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once for each part that is scored: its products want many rows as well."""
    monkeypatch.setattr(head, "PROJECTED", 14 * 300)
    monkeypatch.setattr(head, "SCORED", 4 * 300)
    teacher, student, batch = tiny_model(0), tiny_model(1), as_batch(windows())
    asked: list[int] = []
    teacher.get_submodule("lm_head").register_forward_hook(lambda _, given, out: asked.append(len(out)))
    Distillation(teacher, student, DistillLossConfig(), seed=0)(student, batch)
    assert sum(asked) == len(batch.targets_N)
    assert len(asked) == -(-len(batch.targets_N) // 14)


def test_a_prompt_is_not_scored() -> None:
    model, packed = tiny_model(), windows(unscored=0.0)
    answers = np.zeros_like(packed.input_ids, dtype=bool)
    answers[:, 8:] = True
    scored = as_batch(replace(packed, targets=following(packed.input_ids, answers)))
    mean = CrossEntropy()(model, scored).total
    logits_NV = model(scored.input_ids_BT, segment_ids=scored.segment_ids_BT).logits[:, 7:-1].flatten(0, 1)
    torch.testing.assert_close(mean, F.cross_entropy(logits_NV, scored.input_ids_BT[:, 8:].flatten()))


def ask(folder: Path, teacher: RootsForCausalLM, config: DistillLossConfig) -> TeacherCache:
    return cached_teacher(
        teacher,
        windows(),
        config,
        folder,
        TrainingContext("cpu", 0, folder, Events()),
        tokenizer_sha256="t" * 64,
        precision="no",
    )


@pytest.mark.parametrize("divergence", get_args(Divergence))
def test_a_cache_of_the_whole_vocabulary_teaches_what_the_teacher_does(
    tmp_path: Path, divergence: Divergence
) -> None:
    """But for float16, in loss and gradients."""
    teacher, batch = tiny_model(0), as_batch(windows())
    config = DistillLossConfig(divergence=divergence, temperature=1.5)
    cut = config.model_copy(update={"top_k": VOCAB_SIZE})
    results = []
    for source, settings in ((teacher, config), (ask(tmp_path, teacher, cut), cut)):
        student = tiny_model(1)
        loss = Distillation(source, student, settings, seed=0)(student, batch)
        loss.total.backward()
        gradients = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
        results.append((loss.parts["divergence"], torch.cat(gradients)))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-2, atol=1e-3)
    assert torch.linalg.norm(results[1][1] - results[0][1]) < 0.01 * torch.linalg.norm(results[0][1])


def test_a_cached_teacher_finds_no_fault_with_itself(tmp_path: Path) -> None:
    teacher = tiny_model(0)
    config = DistillLossConfig(top_k=8)
    objective = Distillation(ask(tmp_path, teacher, config), teacher, config, seed=0)
    assert float(objective(teacher, as_batch(windows())).parts["divergence"]) == pytest.approx(0, abs=1e-4)


def test_a_cache_is_read_at_the_rows_of_the_batch(tmp_path: Path) -> None:
    teacher, order = tiny_model(0), BatchOrder(windows(), seed=3)
    config = DistillLossConfig(top_k=8)
    objective = Distillation(ask(tmp_path, teacher, config), teacher, config, seed=0)
    loss = objective(teacher, order.take(9, 6, "cpu"))
    assert float(loss.parts["divergence"]) == pytest.approx(0, abs=1e-4)


def test_equal_models_have_equal_relations() -> None:
    teacher = tiny_model()
    config = DistillLossConfig(relation_weight=2.0)
    loss = Distillation(teacher, tiny_model(), config, seed=0)(teacher, as_batch(windows()))
    assert float(loss.parts["relations"]) == pytest.approx(0, abs=1e-6)


def test_relations_of_other_widths_reach_the_students_projections() -> None:
    teacher = tiny_model(0)
    layer = tiny_layer(num_attention_heads=2, num_key_value_heads=1)
    student = tiny_model(1, hidden_size=24, layers=[layer, layer])
    config = DistillLossConfig(cross_entropy_weight=0.0, divergence_weight=0.0, relation_weight=2.0)
    loss = Distillation(teacher, student, config, seed=0)(student, as_batch(windows()))
    torch.testing.assert_close(loss.total.detach(), 2 * loss.parts["relations"])
    loss.total.backward()
    attention = student.model.layers[-1].self_attn
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        assert projection.weight.grad.abs().max() > 0
    assert not attention.o_proj.weight.grad.any()


def test_given_maps_are_used_and_not_trained() -> None:
    teacher, student = tiny_model(0), tiny_model(1, hidden_size=24, layers=[tiny_layer()])
    config = DistillLossConfig(hidden_weight=1.0, projection="least_squares")
    zero = Distillation(teacher, student, config, seed=0, maps=[torch.zeros(32, 24)])
    loss = zero(student, as_batch(windows()))
    batch = as_batch(windows())
    last = teacher(batch.input_ids_BT, segment_ids=batch.segment_ids_BT, output_hidden_states=True)
    states = last.hidden_states[-1][batch.scored_BT]
    expected = hidden_distance(torch.zeros_like(states), states).mean()
    torch.testing.assert_close(loss.parts["hidden"], expected.detach())
    assert not any(p.requires_grad for p in zero.parameters())


def test_what_the_student_writes_is_corrected_and_not_learnt_by_heart() -> None:
    teacher, student, batch = tiny_model(0), tiny_model(1), as_batch(windows())
    config = DistillLossConfig(divergence_weight=0.7, on_policy_ratio=1.0)
    objective = Distillation(teacher, student, config, seed=5)
    loss = objective(student, batch)
    assert set(loss.parts) == {"divergence"}
    torch.testing.assert_close(loss.total.detach(), 0.7 * loss.parts["divergence"])
    again = objective(student, batch)
    assert torch.equal(again.total, loss.total)
    later = objective(student, replace(batch, first=24))
    assert not torch.equal(later.total, loss.total)


def test_the_students_turn_comes_as_often_as_asked() -> None:
    objective = Distillation(tiny_model(0), tiny_model(1), DistillLossConfig(on_policy_ratio=0.3), seed=0)
    batch = as_batch(windows(1))
    turns = [objective._may_write(replace(batch, first=first)) is not None for first in range(1000)]
    assert 250 < sum(turns) < 350


@pytest.mark.parametrize("cached", [False, True])
def test_rows_that_the_teacher_lacks_are_left_out_of_the_comparison(
    cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student with padded tables learns what one without learns, and the padding itself is left alone.

    Also where blocks of as many logits end after other positions for the teacher than for the student.
    """
    monkeypatch.setattr(head, "PROJECTED", 14 * VOCAB_SIZE)
    monkeypatch.setattr(head, "SCORED", 4 * VOCAB_SIZE)
    config = DistillLossConfig(divergence_weight=1.0, cross_entropy_weight=0.0, top_k=16 if cached else None)
    teacher, batch = tiny_model(0), as_batch(windows())
    plain, padded = tiny_model(1), tiny_model(2, vocab_size=VOCAB_SIZE + 20)
    state = padded.state_dict() | {
        name: torch.cat((tensor, padded.state_dict()[name][VOCAB_SIZE:]))
        if "embed_tokens" in name
        else tensor
        for name, tensor in plain.state_dict().items()
        if name != "lm_head.weight"
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    padded.load_state_dict(state)
    losses = []
    for student in (plain, padded):
        source: RootsForCausalLM | TeacherCache = ask(tmp_path, teacher, config) if cached else teacher
        loss = Distillation(source, student, config, seed=0)(student, batch)
        loss.total.backward()
        losses.append(loss.parts["divergence"])
    torch.testing.assert_close(losses[0], losses[1])
    gradient = padded.model.embed_tokens.weight.grad
    assert gradient is not None
    assert not gradient[VOCAB_SIZE:].any()


def test_a_student_draws_only_tokens_that_its_teacher_knows() -> None:
    config = DistillLossConfig(on_policy_ratio=1.0)
    padded = tiny_model(2, vocab_size=VOCAB_SIZE + 200)
    with torch.no_grad():
        padded.model.embed_tokens.weight[VOCAB_SIZE:] *= 50
    Distillation(tiny_model(0), padded, config, seed=0)(padded, as_batch(windows()))
