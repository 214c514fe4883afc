"""The output head and a loss on its logits, a few positions at a time.

The logits of a batch are its largest tensor by far: 4 x 256 tokens of a vocabulary of 49,152 take 200 MB in
float32, and a loss needs several such. Here they never exist in full: a block of positions is projected, its
rows are scored and differentiated a few at a time, and only the gradients of hidden states and head remain.
Differentiating in the forward pass avoids the second projection of recomputation
(Hsu et al. 2024, Liger Kernel, fused linear cross-entropy; after Chen et al. 2016).

Shape legend: N scored positions, n positions of a block or of a part of it, W hidden size, V vocabulary, L
terms of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roots_compress.models.device import as_multiplied
from roots_compress.models.heads import RootsWithHead
from roots_compress.training.memory import hand_back_free_memory

PROJECTED = 1 << 23
"""Logits projected at a time; 16 MiB in bfloat16. Products with the head are efficient for many positions."""

SCORED = 1 << 21
"""Logits scored at a time, 8 MiB in float32: a loss needs several tensors of that size."""

ROWS = 1 << 12
"""Rows of the head whose gradient is computed at a time."""

Bounded = Callable[[Tensor], Tensor]
"""From the output of the head's matrix to logits."""

TermSums = Callable[[Tensor, slice], Sequence[Tensor]]
"""From logits `nV`, in float32 or wider, and their positions, to each term's sum over them."""


def head_loss(
    model: RootsWithHead, states_NW: Tensor, term_sums: TermSums, weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return a weighted sum of terms of the logits, and the terms, each a mean over the positions.

    Args:
        model: the one whose head is applied, in the precision of autocast. Vectors are treated as logits.
        states_NW: final hidden states; N at least 1.
        term_sums: called once for each part of the positions, with gradients enabled.

    Returns:
        the total, a scalar with gradients for hidden states and head, and the terms `L`, without gradients.
    """
    if model.head_matrix is None:
        sums = term_sums(model.head_input(states_NW), slice(0, len(states_NW)))
        means_L = torch.stack([term / len(states_NW) for term in sums])
        return (means_L * means_L.new_tensor(weights)).sum(), means_L.detach()
    weight_VW, bias_V = model.head_matrix
    hand_back_free_memory()
    read_NW = model.head_input(states_NW)
    total, terms_L = _HeadLoss.apply(read_NW, weight_VW, bias_V, model.bounded, term_sums, tuple(weights))
    return total, terms_L


def chunks(positions: int, vocab_size: int, budget: int) -> Iterator[slice]:
    """Cut positions into the fewest slices of nearly equal length within a budget of logits."""
    largest = max(1, budget // vocab_size)
    count = -(-positions // largest)
    bounds = [positions * index // count for index in range(count + 1)]
    return (slice(start, stop) for start, stop in pairwise(bounds))


class BlockByBlock:
    """Logits of another model, projected in the blocks of `head_loss` and read by a loss part by part.

    Args:
        outcomes: the number of outcomes of the model with the loss, which decides where blocks end.
    """

    def __init__(self, project: Callable[[slice], Tensor], positions: int, outcomes: int) -> None:
        self._project = project
        self._blocks = chunks(positions, outcomes, PROJECTED)
        self._block = slice(0, 0)
        self._logits_nV = torch.empty(0)

    def at(self, part: slice) -> Tensor:
        """Return the logits `nV` of the next part, which is inside one block."""
        while part.start >= self._block.stop:
            self._block = next(self._blocks)
            self._logits_nV = self._project(self._block)
        first = self._block.start
        return self._logits_nV[part.start - first : part.stop - first]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NW: Tensor,
        weight_VW: Tensor,
        bias_V: Tensor | None,
        bounded: Bounded,
        term_sums: TermSums,
        weights: tuple[float, ...],
    ) -> tuple[Tensor, Tensor]:
        hidden, weight = as_multiplied(hidden_NW), as_multiplied(weight_VW)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden_NW = torch.empty_like(hidden) if wants_hidden else None
        # Summed in the weights' own precision: in bfloat16 later blocks' additions would be lost.
        grad_weight_VW = torch.zeros_like(weight_VW) if wants_weight else None
        grad_bias_V = torch.zeros_like(bias_V) if wants_bias and bias_V is not None else None
        sums_L: list[Tensor] = []
        for block in chunks(len(hidden), len(weight), PROJECTED):
            # The gradients overwrite the logits.
            logits_nV = hidden[block] @ weight.T
            for rows in chunks(len(logits_nV), len(weight), SCORED):
                part = slice(block.start + rows.start, block.start + rows.stop)
                wanted_V = bias_V if wants_bias else None
                sums, gradients = _scored(logits_nV[rows], bounded, wanted_V, part, term_sums, weights)
                sums_L.append(sums)
                logits_nV[rows] = gradients[0]
                if grad_bias_V is not None:
                    grad_bias_V += gradients[1]
            if grad_hidden_NW is not None:
                torch.mm(logits_nV, weight, out=grad_hidden_NW[block])
            if grad_weight_VW is not None:
                _add_product(grad_weight_VW, logits_nV, hidden[block])
        ctx.grads = grad_hidden_NW, grad_weight_VW, grad_bias_V
        ctx.positions = len(hidden)
        terms_L = torch.stack(sums_L).sum(dim=0) / len(hidden)
        ctx.mark_non_differentiable(terms_L)
        return (terms_L * terms_L.new_tensor(weights)).sum(), terms_L

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Released here, so that the parameter takes over the head's gradient instead of copying it.
        gradients, ctx.grads = ctx.grads, None
        assert gradients is not None, "a chunked loss can be differentiated once"
        hand_back_free_memory()  # memory freed by scoring, before the layers' gradients
        factor = grad_total / ctx.positions
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor)
        return *gradients, None, None, None


def _scored(
    logits_nV: Tensor,
    bounded: Bounded,
    bias_V: Tensor | None,
    part: slice,
    term_sums: TermSums,
    weights: tuple[float, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the sums of the terms `L`, and the gradients of their weighted sum: in the logits, the bias."""
    wide_nV = logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32), copy=True).requires_grad_()
    with torch.enable_grad():
        terms = term_sums(bounded(wide_nV), part)
        total = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()
    gradients = torch.autograd.grad(total, wide_nV if bias_V is None else (wide_nV, bias_V))
    return torch.stack([term.detach() for term in terms]), gradients


def _add_product(sum_VW: Tensor, grad_nV: Tensor, hidden_nW: Tensor) -> None:
    """Add `grad_nV.T @ hidden_nW`, some rows at a time.

    Adding a bfloat16 tensor to a float32 one copies it whole to float32 first.
    """
    for rows_vW, grad_nv in zip(sum_VW.split(ROWS), grad_nV.split(ROWS, dim=1), strict=True):
        rows_vW += grad_nv.T @ hidden_nW
