"""What training minimises: the interface, plain cross-entropy, and losses in bounded memory.

Shape legend: B windows, T tokens in a window, N scored positions of a batch, W hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.training.batches import Batch

LOGITS_BUDGET = 1 << 24
"""Logits of one model held at a time; 64 MiB in float32."""


@dataclass(frozen=True)
class Loss:
    """A loss and what it is made of, each a mean over the scored positions of its batch."""

    total: Tensor
    parts: dict[str, Tensor]
    """The unweighted terms by name, detached."""


class Objective(nn.Module):
    """A loss to train by.

    Parameters of its own that require gradients are trained with the model and kept in the training state.
    Every term must be a mean over the batch's scored positions: the loop weighs micro-batches by their number
    of scored positions, which makes accumulated gradients those of one large batch.
    """

    def forward(self, model: RootsForCausalLM, batch: Batch) -> Loss:
        """Return the loss of a batch, differentiable in the model's parameters."""
        raise NotImplementedError


class CrossEntropy(Objective):
    """The mean negative log-likelihood of each scored token given the tokens before it, in nats."""

    def forward(self, model: RootsForCausalLM, batch: Batch) -> Loss:
        """Return the cross-entropy of a batch."""
        hidden_NW = final_hidden(model, batch)[0]
        targets_N = batch.targets_N

        def term_sums(part: slice) -> Tensor:
            logits_nV = model.project(hidden_NW[part]).float()
            return F.cross_entropy(logits_nV, targets_N[part], reduction="sum")

        mean = chunked_mean(term_sums, len(targets_N), model.config.vocab_size)
        return Loss(mean, {"cross_entropy": mean.detach()})


def final_hidden(
    model: RootsForCausalLM, batch: Batch, *, states: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the decoder without its head and keep the scored positions.

    Returns:
        the normed final states `NW`; and, where `states`, the residual stream `NW` after the embedding and
        after each layer.
    """
    output = model.model(
        input_ids=batch.input_ids_BT,
        segment_ids=batch.segment_ids_BT,
        use_cache=False,
        output_hidden_states=states,
    )
    scored_BT = batch.scored_BT
    return output.last_hidden_state[scored_BT], tuple(h[scored_BT] for h in output.hidden_states or ())


def chunked_mean(term_sums: Callable[[slice], Tensor], positions: int, vocab_size: int) -> Tensor:
    """Return the mean over positions of terms computed from logits, holding few logits at a time.

    Where the positions do not fit one chunk of `LOGITS_BUDGET`, each chunk's logits are computed again in the
    backward pass instead of being kept (Chen et al. 2016): one more product with the head buys memory that
    does not grow with batch, length or vocabulary.

    Args:
        term_sums: the terms summed over a slice of the positions, as a tensor of any shape.
        positions: N, at least 1.
        vocab_size: V.
    """
    parts = list(_chunks(positions, max(1, LOGITS_BUDGET // vocab_size)))
    if len(parts) == 1:
        return term_sums(parts[0]) / positions
    sums = [checkpoint(term_sums, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum(dim=0) / positions


def _chunks(positions: int, largest: int) -> Iterator[slice]:
    """Cut `positions` into the fewest slices of at most `largest`, of nearly equal length."""
    count = -(-positions // largest)
    bounds = [positions * index // count for index in range(count + 1)]
    return (slice(start, stop) for start, stop in pairwise(bounds))
