"""Divergences between a teacher's and a student's distributions, and truncated distributions.

All functions are pure and work on log-probabilities along the last dimension. A distribution truncated to its
k most probable tokens, with one bin for the rest, has k + 1 outcomes: every divergence applies to it, and
never exceeds that of the full distribution (data processing inequality).

Shape legend: N positions, V vocabulary, k kept tokens, K = k + 1 outcomes, C outcomes of any kind.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roots_compress.configs.training import Divergence

SMALLEST_TAIL = 1e-6
"""Least probability of the tokens left out: the precision of sums of float32 probabilities."""


def divergence(log_student_NC: Tensor, log_teacher_NC: Tensor, kind: Divergence) -> Tensor:
    """Return the divergence at each position, `N`, in nats.

    - `forward_kl`: KL(teacher || student), with which the student covers all modes of the teacher
      (Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network).
    - `reverse_kl`: KL(student || teacher), with which it covers only the teacher's main modes (Gu et al.
      2024, MiniLLM).
    - `jensen_shannon`: the mean KL of both to their mixture, between 0 and log 2 (Lin 1991; in distillation
      Agarwal et al. 2024, On-Policy Distillation of Language Models).

    Args:
        log_student_NC: normalised log-probabilities, through which gradients flow.
        log_teacher_NC: the teacher's for the same outcomes.
    """
    if kind == "forward_kl":
        return _kl(log_teacher_NC, log_student_NC)
    if kind == "reverse_kl":
        return _kl(log_student_NC, log_teacher_NC)
    log_mixture_NC = torch.logaddexp(log_student_NC, log_teacher_NC) - math.log(2)
    return (_kl(log_teacher_NC, log_mixture_NC) + _kl(log_student_NC, log_mixture_NC)) / 2


def soften(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities of logits divided by a temperature, in float32 or wider."""
    wide = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return (wide / temperature if temperature != 1 else wide).log_softmax(dim=-1)


def top_k_with_tail(log_probs_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Truncate distributions to their top tokens, with one outcome for all others.

    Without that outcome a truncated teacher is biased towards its top (Anshumann et al. 2025, "Sparse Logit
    Sampling", arXiv:2503.16870).

    Returns:
        the k most probable tokens `Nk`, most probable first, and the log-probabilities `NK` of these and of
        all others together.
    """
    top = log_probs_NV.topk(k, dim=-1)
    return top.indices, _with_tail(top.values)


def at_tokens_with_tail(logits_NV: Tensor, tokens_Nk: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities `NK` of some tokens from logits, and of all others together.

    The same as truncating `soften(logits_NV, temperature)`, without computing its `NV` log-probabilities.
    """
    return _with_tail(log_probs_at(logits_NV / temperature if temperature != 1 else logits_NV, tokens_Nk))


def log_probs_at(logits_NV: Tensor, tokens_Nk: Tensor) -> Tensor:
    """Return the log-probabilities `Nk` of some tokens from logits; each token occurs once at a position.

    `log_softmax` and `gather` give the same, but need more tensors of the logits' size for the gradient.
    """
    log_probs_Nk: Tensor = _LogProbsAt.apply(logits_NV, tokens_Nk)
    return log_probs_Nk


class _LogProbsAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, tokens_Nk: Tensor) -> Tensor:
        normaliser_N1 = logits_NV.logsumexp(dim=-1, keepdim=True)
        ctx.save_for_backward(logits_NV, tokens_Nk, normaliser_N1)
        return logits_NV.gather(-1, tokens_Nk) - normaliser_N1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_Nk: Tensor) -> tuple[Tensor, None]:
        logits_NV, tokens_Nk, normaliser_N1 = ctx.saved_tensors
        probabilities_NV = (logits_NV - normaliser_N1).exp_()
        grad_NV = probabilities_NV.mul_(-grad_Nk.sum(dim=-1, keepdim=True))
        return grad_NV.scatter_add_(-1, tokens_Nk, grad_Nk), None


def _with_tail(log_probs_Nk: Tensor) -> Tensor:
    """Append the log-probability of everything else, and correct the sum for rounding."""
    tail_N1 = 1 - log_probs_Nk.exp().sum(dim=-1, keepdim=True)
    log_tail_N1 = tail_N1.clamp(min=SMALLEST_TAIL).log()
    return torch.cat((log_probs_Nk, log_tail_N1), dim=-1).log_softmax(dim=-1)


def _kl(log_p_NC: Tensor, log_q_NC: Tensor) -> Tensor:
    return (log_p_NC.exp() * (log_p_NC - log_q_NC)).sum(dim=-1)
