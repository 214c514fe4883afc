"""Divergences against plain references, and distributions cut to their top."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from roots_compress.configs.training import Divergence
from roots_compress.training.distillation.divergence import (
    at_tokens_with_tail,
    divergence,
    log_probs_at,
    soften,
    top_k_with_tail,
)

KINDS: tuple[Divergence, ...] = get_args(Divergence)
VOCAB = 11


def logits(seed: int, positions: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(positions, VOCAB, generator=generator, dtype=torch.float64) * 3


def log_probs(seed: int) -> torch.Tensor:
    return logits(seed).log_softmax(dim=-1)


def reference(student: torch.Tensor, teacher: torch.Tensor, kind: Divergence) -> torch.Tensor:
    def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=-1)

    if kind == "forward_kl":
        return kl(teacher, student)
    if kind == "reverse_kl":
        return kl(student, teacher)
    mixture = ((student.exp() + teacher.exp()) / 2).log()
    return (kl(student, mixture) + kl(teacher, mixture)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_equals_torchs(kind: Divergence) -> None:
    student, teacher = log_probs(0), log_probs(1)
    torch.testing.assert_close(divergence(student, teacher, kind), reference(student, teacher, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_from_oneself_is_zero(kind: Divergence) -> None:
    assert divergence(log_probs(0), log_probs(0), kind).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_match_finite_differences(kind: Divergence) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    assert torch.autograd.gradcheck(
        lambda x: divergence(soften(x, 1.7), soften(teacher, 1.7), kind).sum(), (student,)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_at_the_top_match_finite_differences(kind: Divergence) -> None:
    student = logits(0).requires_grad_()
    tokens, teacher = top_k_with_tail(log_probs(1), 4)
    assert torch.autograd.gradcheck(
        lambda x: divergence(at_tokens_with_tail(x, tokens, 1.7), teacher, kind).sum(), (student,)
    )


def test_log_probabilities_at_tokens_equal_the_gathered_ones() -> None:
    tokens = log_probs(1).topk(4).indices
    weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for compute in (log_probs_at, lambda x, at: x.log_softmax(dim=-1).gather(-1, at)):
        given = logits(0).requires_grad_()
        found = compute(given, tokens)
        results.append((found.detach(), *torch.autograd.grad((weights * found).sum(), given)))
    torch.testing.assert_close(results[0], results[1])


class MadeTensors(TorchDispatchMode):
    """Keeps every tensor of a shape that an operation gives out, and so counts their places in memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.made = shape, list[torch.Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape == self.shape:
            self.made.append(out)
        return out

    @property
    def places(self) -> int:
        return len({tensor.untyped_storage().data_ptr() for tensor in self.made})


def test_the_way_back_from_log_probabilities_makes_the_gradient_alone() -> None:
    given = logits(0).requires_grad_()
    total = log_probs_at(given, log_probs(1).topk(4).indices).exp().sum()
    with MadeTensors(given.shape) as watch:
        torch.autograd.grad(total, given)
    assert watch.places == 1


def test_jensen_shannon_is_symmetric_and_bounded() -> None:
    student, teacher = log_probs(0), log_probs(1)
    distance = divergence(student, teacher, "jensen_shannon")
    torch.testing.assert_close(distance, divergence(teacher, student, "jensen_shannon"))
    far = divergence(30 * student, 30 * teacher, "jensen_shannon")
    assert (distance < math.log(2)).all()
    assert far.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_far_apart_half_precision_logits_have_a_finite_divergence(kind: Divergence) -> None:
    student = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    distance = divergence(soften(student, 1.0), soften(-student, 1.0), kind)
    assert distance.dtype == torch.float32
    assert distance.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_top_of_the_whole_vocabulary_gives_the_full_divergence(kind: Divergence) -> None:
    tokens, teacher = top_k_with_tail(log_probs(1), VOCAB)
    student = at_tokens_with_tail(logits(0), tokens, 1.0)
    full = divergence(log_probs(0), log_probs(1), kind)
    torch.testing.assert_close(divergence(student, teacher, kind), full, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_divergence_grows_with_k_and_never_exceeds_the_full_one(kind: Divergence) -> None:
    full, before = divergence(log_probs(0), log_probs(1), kind), torch.zeros(5, dtype=torch.float64)
    for k in range(1, VOCAB - 1):
        tokens, teacher = top_k_with_tail(log_probs(1), k)
        cut = divergence(at_tokens_with_tail(logits(0), tokens, 1.0), teacher, kind)
        assert (cut >= before - 1e-5).all()
        assert (cut <= full + 1e-5).all()
        before = cut


def test_the_tail_holds_what_the_top_leaves() -> None:
    tokens, cut = top_k_with_tail(log_probs(0), 3)
    probabilities = log_probs(0).exp()
    assert tokens.shape == (5, 3)
    torch.testing.assert_close(cut[:, :3].exp(), probabilities.gather(1, tokens))
    torch.testing.assert_close(cut[:, 3].exp(), 1 - probabilities.gather(1, tokens).sum(dim=1))
    assert (probabilities.gather(1, tokens).min(dim=1).values >= probabilities.sort().values[:, -3]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_top_leaves_nothing_divergence_and_gradient_stay_finite(kind: Divergence) -> None:
    student, teacher = (torch.zeros(1, VOCAB).index_fill(1, torch.tensor([place]), 200.0) for place in (0, 1))
    tokens, log_teacher = top_k_with_tail(soften(teacher, 1.0), 2)
    student.requires_grad_()
    distance = divergence(at_tokens_with_tail(student, tokens, 1.0), log_teacher, kind).sum()
    distance.backward()
    assert distance.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_logits_at_tokens_are_those_of_the_cut_distribution() -> None:
    tokens, cut = top_k_with_tail(soften(logits(0), 1.7), 4)
    torch.testing.assert_close(at_tokens_with_tail(logits(0), tokens, 1.7), cut)
