"""What training minimises: the interface, and plain cross-entropy.

Shape legend: B windows, T tokens in a window, N scored positions of a batch, W hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from roots_compress.models.heads import RootsWithHead
from roots_compress.results import Json
from roots_compress.training.batches import Batch
from roots_compress.training.distillation.divergence import log_probs_at
from roots_compress.training.distillation.head import head_loss


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
    of scored positions, which makes accumulated gradients those of one large batch. Whatever is random must
    follow from the batch's place in training (`Batch.first`): an interrupted training goes on exactly.
    """

    whole_micro_batches: bool = False
    """Whether a micro-batch must not be cut between processes."""

    def read_files(self) -> Json:
        """Return what tells the files that are read while training from others: processes compare it."""
        return None

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        """Return the loss of a batch, differentiable in the model's parameters."""
        raise NotImplementedError


class CrossEntropy(Objective):
    """The mean negative log-likelihood of each scored token given the tokens before it, in nats."""

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        """Return the cross-entropy of a batch."""
        targets_N = batch.targets_N
        hidden_BTW = model.model(**batch.inputs, use_cache=False).last_hidden_state

        def term_sums(logits_nV: Tensor, part: slice) -> tuple[Tensor]:
            return (cross_entropy_sum(logits_nV, targets_N[part]),)

        scored_NW = model.states_at(hidden_BTW, batch.scored_BT, batch.segment_ids_BT)
        total, terms_L = head_loss(model, scored_NW, term_sums, (1.0,))
        return Loss(total, {"cross_entropy": terms_L[0]})


def cross_entropy_sum(logits_nV: Tensor, targets_n: Tensor) -> Tensor:
    """Return the negative log-likelihood of the targets, summed."""
    return -log_probs_at(logits_nV, targets_n[:, None]).sum()
