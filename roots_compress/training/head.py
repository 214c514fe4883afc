"""The output head and a loss on its logits, a few positions at a time.

The logits of a batch are its largest tensor by far: 4 x 256 tokens of a vocabulary of 49,152 take 200 MB in
float32, and a loss needs several such. Here they never exist in full: each chunk of positions is projected,
scored, differentiated and dropped, and only the gradients of hidden states and head remain. Differentiating
at once, in the forward pass, spares the second projection that recomputation would cost (Hsu et al. 2024,
Liger Kernel, fused linear cross-entropy; after Chen et al. 2016).

Shape legend: N scored positions, n positions of a chunk, W hidden size, V vocabulary, L terms of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.training.memory import hand_back_free_memory

LOGITS_BUDGET = 1 << 23
"""Logits of one model held at a time; 32 MiB in float32."""

ROWS = 1 << 12
"""Rows of the head whose gradient is computed at a time."""

TermSums = Callable[[Tensor, slice], Sequence[Tensor]]
"""Given logits `nV`, in float32 or wider, and the positions they belong to: each term's sum over them."""


def head_loss(
    model: RootsForCausalLM, hidden_NW: Tensor, term_sums: TermSums, weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return a weighted sum of terms of the logits, and the terms, each a mean over the positions.

    Args:
        model: its head is applied, in the precision of autocast.
        hidden_NW: final hidden states; N at least 1.
        term_sums: called once for each chunk of positions, with gradients enabled.
        weights: one for each term.

    Returns:
        the total, a scalar through which gradients reach hidden states and head; and the terms `L`, which
        carry none.
    """
    head = model.lm_head
    assert head is not None, "a quantized head has no gradient"
    hand_back_free_memory()
    total, terms_L = _HeadLoss.apply(
        hidden_NW, head.weight, model.config.logit_scale, term_sums, tuple(weights)
    )
    return total, terms_L


def chunks(positions: int, vocab_size: int) -> Iterator[slice]:
    """Cut positions into the fewest slices whose logits fit the budget, of nearly equal length."""
    largest = max(1, LOGITS_BUDGET // vocab_size)
    count = -(-positions // largest)
    bounds = [positions * index // count for index in range(count + 1)]
    return (slice(start, stop) for start, stop in pairwise(bounds))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NW: Tensor,
        weight_VW: Tensor,
        scale: float,
        term_sums: TermSums,
        weights: tuple[float, ...],
    ) -> tuple[Tensor, Tensor]:
        hidden, weight = _as_computed(hidden_NW), _as_computed(weight_VW)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden_NW = torch.empty_like(hidden) if wants_hidden else None
        # Summed up in the weights' own precision: bfloat16 would lose what later chunks add.
        grad_weight_VW = torch.zeros_like(weight_VW) if wants_weight else None
        sums_L: list[Tensor] = []
        for part in chunks(len(hidden), len(weight)):
            logits_nV = (hidden[part] @ weight.T).to(_at_least_float32(hidden.dtype))
            if scale != 1:
                logits_nV *= scale
            with torch.enable_grad():
                terms = term_sums(logits_nV.requires_grad_(), part)
                total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
            sums_L.append(torch.stack([term.detach() for term in terms]))
            if wants_hidden or wants_weight:
                assert isinstance(total, Tensor)
                (grad_nV,) = torch.autograd.grad(total, logits_nV)
                del terms, total, logits_nV
                grad_nV = grad_nV.mul_(scale).to(hidden.dtype) if scale != 1 else grad_nV.to(hidden.dtype)
                if grad_hidden_NW is not None:
                    torch.mm(grad_nV, weight, out=grad_hidden_NW[part])
                if grad_weight_VW is not None:
                    _add_product(grad_weight_VW, grad_nV, hidden[part])
        ctx.grads = grad_hidden_NW, grad_weight_VW
        ctx.positions = len(hidden)
        terms_L = torch.stack(sums_L).sum(dim=0) / len(hidden)
        ctx.mark_non_differentiable(terms_L)
        return (terms_L * terms_L.new_tensor(weights)).sum(), terms_L

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Forgotten here, so that the head's gradient is taken over by its parameter and not copied.
        gradients, ctx.grads = ctx.grads, None
        assert gradients is not None, "a chunked loss can be differentiated once"
        grad_hidden_NW, grad_weight_VW = gradients
        factor = grad_total / ctx.positions
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor)
        return grad_hidden_NW, grad_weight_VW, None, None, None


def _add_product(sum_VW: Tensor, grad_nV: Tensor, hidden_nW: Tensor) -> None:
    """Add `grad_nV.T @ hidden_nW`, some rows at a time.

    Adding a bfloat16 tensor to a float32 one copies it whole to float32 first.
    """
    for rows_vW, grad_nv in zip(sum_VW.split(ROWS), grad_nV.split(ROWS, dim=1), strict=True):
        rows_vW += grad_nv.T @ hidden_nW


def _as_computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the precision in which autocast multiplies matrices here."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
