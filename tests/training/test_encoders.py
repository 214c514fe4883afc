"""Encoders learn by the same loop: segments, heads, masks, and what is compared with a teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.configs.training import DistillLossConfig
from roots_compress.data.documents import Document
from roots_compress.data.masking import CHOSEN, MaskedWindows, pack_masked
from roots_compress.data.packing import pack_texts
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead
from roots_compress.training.batches import Batch, BatchOrder
from roots_compress.training.distillation import head
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.objective import CrossEntropy
from tests.encoders import MASK_ID, ROWS, encoder_tokenizer, tiny_encoder
from tests.tiny import TEXT, tiny_tokens

DOCUMENTS = [Document.plain(TEXT * 3), Document.plain(TEXT), Document.plain("A short one.")]


def masked_windows(seed: int = 0, block_size: int = 32) -> MaskedWindows:
    return pack_masked(DOCUMENTS, encoder_tokenizer(), block_size, seed=seed)


def all_of(windows: MaskedWindows) -> Batch:
    return BatchOrder(windows, seed=0).at(range(len(windows.input_ids)), "cpu")


def test_edges_of_texts_and_windows_are_there_once() -> None:
    tokenizer = encoder_tokenizer()
    documents = [Document.plain(" ".join(["fox", "dog"] * (1 + number % 4))) for number in range(60)]
    packed = pack_texts(documents, tokenizer, 16, seed=0)
    special = np.isin(packed.input_ids, tokenizer.all_special_ids)
    rows, places = np.nonzero(special[:, :-1] & special[:, 1:])
    meeting = packed.input_ids[rows, places], packed.input_ids[rows, places + 1]
    assert {*zip(*(each.tolist() for each in meeting), strict=True)} == {
        (tokenizer.sep_token_id, tokenizer.cls_token_id)
    }
    scored = Counter(packed.targets[packed.targets != IGNORED_LABEL].tolist())
    given = Counter(
        token
        for document in documents
        for token in tokenizer(document.text, add_special_tokens=False)["input_ids"]
    )
    assert not scored - given
    assert (given - scored).total() < 16  # After the last full window.
    # Some windows are filled with their first tokens, unscored.
    filled = packed.segment_ids == packed.segment_ids.max(axis=1, keepdims=True)
    assert ((packed.targets == IGNORED_LABEL) | ~filled).all(axis=1).any()


@torch.no_grad()
def test_packed_texts_are_read_as_separate_ones() -> None:
    model = tiny_encoder()
    parts = [tiny_tokens(1, tokens, seed) for seed, tokens in enumerate((7, 4, 9))]
    segments = torch.cat([torch.full_like(part, number) for number, part in enumerate(parts)], dim=1)
    packed = model.model(torch.cat(parts, dim=1), segment_ids=segments).last_hidden_state
    alone = torch.cat([model.model(part).last_hidden_state for part in parts], dim=1)
    torch.testing.assert_close(packed, alone)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_objective_reads_each_packed_text_by_itself(pooling: Literal["first", "mean"]) -> None:
    spec = ClassificationHead(labels=3, pooling=pooling, activation="gelu", eps=1e-5, norm_bias=False)
    model = tiny_encoder("classification", head=spec)
    parts = [tiny_tokens(1, tokens, seed) for seed, tokens in enumerate((7, 4, 9))]
    alone = torch.cat([model(part).logits for part in parts])
    segments = torch.cat([torch.full_like(part, number) for number, part in enumerate(parts)], dim=1)
    targets = torch.full_like(segments, IGNORED_LABEL)
    targets[0, [0, 7, 11]] = torch.tensor([2, 0, 1])
    loss = CrossEntropy()(model, Batch(torch.cat(parts, dim=1), targets, segments, (0,), 0))
    torch.testing.assert_close(loss.total, F.cross_entropy(alone, torch.tensor([2, 0, 1])))


@pytest.mark.parametrize("kind", ["masked_lm", "classification"])
def test_a_head_s_loss_and_gradients_equal_the_plain_ones(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    results = []
    for chunked in (False, True):
        model = tiny_encoder(kind).double()
        monkeypatch.setattr(head, "PROJECTED", 14 * model.outcomes)
        monkeypatch.setattr(head, "SCORED", 4 * model.outcomes)
        states = torch.randn(45, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        targets = torch.arange(45) % model.outcomes

        def term_sums(logits: Tensor, part: slice, of: Tensor = targets) -> Sequence[Tensor]:
            return F.cross_entropy(logits, of[part], reduction="sum"), logits.square().sum()

        if chunked:
            total, _ = head.head_loss(model, states.requires_grad_(), term_sums, (0.7, 0.2))
        else:
            logits = model.project(states.requires_grad_())
            total = 0.7 * F.cross_entropy(logits, targets) + 0.2 * logits.square().sum(dim=-1).mean()
        (3 * total).backward()
        results.append(
            {
                "total": total.detach(),
                "states": states.grad,
                **{name: value.grad for name, value in model.named_parameters() if value.grad is not None},
            }
        )
    torch.testing.assert_close(results[1], results[0])
    assert {name for name in results[0] if name.endswith("bias")} > {"dense.bias", "transform.bias"} & set(
        dict(tiny_encoder(kind).named_parameters())
    )


def test_a_mask_hides_a_part_and_no_special_token() -> None:
    windows = masked_windows()
    hidden = windows.targets != IGNORED_LABEL
    assert np.array_equal(windows.targets[hidden], windows.text[hidden])
    assert not np.isin(windows.text[hidden], [0, 1, 2, MASK_ID]).any()
    assert np.array_equal(windows.input_ids[~hidden], windows.text[~hidden])
    counts = windows.maskable.sum(axis=1)
    assert hidden.sum(axis=1).tolist() == [max(1, round(CHOSEN * count)) for count in counts]
    read = windows.input_ids[hidden]
    assert 0.6 < (read == MASK_ID).mean() < 0.95
    assert not np.isin(read, [0, 1, 2]).any()
    # Every window is a text to its model, as are the documents in it.
    assert (windows.text[:, 0] == 0).all()
    assert (windows.text[:, -1] == 1).all()
    starts = np.diff(windows.segment_ids, axis=1) == 1
    assert (windows.text[:, 1:][starts] == 0).all()
    assert (windows.text[:, :-1][starts] == 1).all()


def test_every_epoch_hides_other_tokens_and_any_place_can_be_read_again() -> None:
    order = BatchOrder(masked_windows(), seed=3)
    count = len(order)
    epochs = [order.take(epoch * count, count, "cpu") for epoch in range(2)]
    by_row = [{row: batch.targets_BT[place] for place, row in enumerate(batch.rows)} for batch in epochs]
    assert any(not torch.equal(by_row[0][row], by_row[1][row]) for row in range(count))
    again = BatchOrder(masked_windows(), seed=3)
    for first in (count + 2, 1):
        one = again.take(first, 1, "cpu")
        epoch, place = divmod(first, count)
        assert torch.equal(one.input_ids_BT[0], epochs[epoch].input_ids_BT[place])
        assert torch.equal(one.targets_BT[0], epochs[epoch].targets_BT[place])
    for batch in epochs:
        scored = batch.scored_BT.sum(dim=1).tolist()
        assert scored == [int(order.scored_counts[row]) for row in batch.rows]
    fixed = BatchOrder(masked_windows().fixed(), seed=3)
    assert torch.equal(fixed.at(range(count), "cpu").targets_BT, order.at(range(count), "cpu").targets_BT)
    later = fixed.take(count, count, "cpu")
    assert torch.equal(later.targets_BT, fixed.at(later.rows, "cpu").targets_BT)


def test_cross_entropy_is_that_of_the_hidden_tokens() -> None:
    model, batch = tiny_encoder(), all_of(masked_windows())
    logits = model(batch.input_ids_BT, segment_ids=batch.segment_ids_BT).logits
    hidden = batch.targets_BT != IGNORED_LABEL
    expected = F.cross_entropy(logits[hidden], batch.targets_BT[hidden])
    torch.testing.assert_close(CrossEntropy()(model, batch).total, expected)


def test_relations_are_with_all_tokens_of_the_text() -> None:
    teacher = tiny_encoder()
    config = DistillLossConfig(cross_entropy_weight=0, divergence_weight=0, relation_weight=1.0)
    batch = all_of(masked_windows())

    def relations(student: RootsWithHead, given: Batch) -> float:
        return float(Distillation(teacher, student, config, seed=0)(student, given).total.detach())

    assert relations(teacher, batch) == pytest.approx(0, abs=1e-5)
    student = tiny_encoder(seed=1)
    targets = torch.full_like(batch.targets_BT, IGNORED_LABEL)
    targets[:, 0] = 5
    first = Batch(batch.input_ids_BT, targets, batch.segment_ids_BT, batch.rows, 0)
    # The first token of a text sees itself only where attention is causal: its relations would be equal.
    assert relations(student, first) > 0.01


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_vector_s_divergence_is_the_angle_to_the_teacher_s(pooling: Literal["mean", "first"]) -> None:
    teacher, student = (
        tiny_encoder("embedding", seed, head=EmbeddingHead(pooling=pooling)) for seed in (0, 1)
    )
    packed = pack_texts(DOCUMENTS, encoder_tokenizer(), 32, seed=0)
    batch = BatchOrder(packed, seed=0).at(range(len(packed.input_ids)), "cpu")
    loss = Distillation(teacher, student, DistillLossConfig(), seed=0)(student, batch)
    assert loss.parts.keys() == {"divergence"}
    distances, vectors = [], []
    for ids, segments, scored in zip(batch.input_ids_BT, batch.segment_ids_BT, batch.scored_BT, strict=True):
        for segment in segments.unique():
            text = ids[segments == segment][None]
            mine, theirs = (model(text).last_hidden_state[0] for model in (student, teacher))
            vectors.append(mine)
            apart = 1 - F.cosine_similarity(mine, theirs, dim=0)
            distances += [apart] * int(scored[segments == segment].sum())
    torch.testing.assert_close(loss.parts["divergence"], torch.stack(distances).mean().detach())
    together = student(batch.input_ids_BT, segment_ids=batch.segment_ids_BT).last_hidden_state
    torch.testing.assert_close(together, torch.stack(vectors))
    loss.total.backward()
    assert student.get_parameter("model.embed_tokens.weight").grad is not None


@pytest.mark.parametrize("kind", ["masked_lm", "classification"])
def test_a_student_s_every_parameter_learns_from_its_teacher(kind: str) -> None:
    teacher, student = tiny_encoder(kind), tiny_encoder(kind, seed=1, layers=1, channels=24).train()
    batch = all_of(masked_windows())
    if kind == "classification":
        targets = torch.full_like(batch.targets_BT, IGNORED_LABEL)
        targets[:, 0] = torch.arange(len(targets)) % 3
        batch = Batch(batch.input_ids_BT, targets, batch.segment_ids_BT, batch.rows, 0)
    config = DistillLossConfig(hidden_weight=0.1, relation_weight=0.1)
    loss = Distillation(teacher, student, config, seed=0)(student, batch)
    loss.total.backward()
    assert loss.parts.keys() == {"cross_entropy", "divergence", "hidden", "relations"}
    assert [name for name, value in student.named_parameters() if value.grad is None] == []
    rows = [
        model.project(model.model(batch.input_ids_BT, segment_ids=batch.segment_ids_BT).last_hidden_state)[
            batch.scored_BT
        ].log_softmax(-1)
        for model in (student, teacher)
    ]
    expected = F.kl_div(rows[0], rows[1], log_target=True, reduction="batchmean")
    torch.testing.assert_close(loss.parts["divergence"], expected.detach())
    assert rows[0].shape[-1] == (ROWS if kind == "masked_lm" else 3)
