"""What training minimises: the interface, and plain cross-entropy.

Shape legend: B windows, T tokens in a window, N scored positions of a batch, W hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor, nn

from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import InputError, recipe_key
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.labels import RootsForScore
from roots_compress.results import Json
from roots_compress.training.batches import Batch
from roots_compress.training.distillation.divergence import log_probs_at
from roots_compress.training.distillation.head import head_loss

Distance = Callable[[Tensor, slice], Tensor]
"""Given a model's logits, vectors or scores at a chunk of positions: how far from what is right, in sum."""


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

    @property
    def running_teacher(self) -> RootsWithHead | None:
        """The frozen model that runs along, if there is one."""
        return None

    def taught_by(self, teacher: RootsWithHead) -> Self:
        """Return the objective with the same tensors, but with another such model."""
        raise NotImplementedError

    def read_files(self) -> Json:
        """Return what tells the files that are read while training from others: processes compare it."""
        return None

    def check(self, model: RootsWithHead, windows: PackedWindows) -> None:
        """Check that a model can learn from windows.

        Raises:
            InputError: what they say is right is nothing that it gives.
        """

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        """Return the loss of a batch, differentiable in the model's parameters."""
        raise NotImplementedError


class CrossEntropy(Objective):
    """The mean negative log-likelihood of each scored token given the tokens before it, in nats."""

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        hidden_BTW = model.model(**batch.inputs, use_cache=False).last_hidden_state
        total, shown = cross_entropy(model, hidden_BTW, batch)
        return Loss(total, {"cross_entropy": shown})


class ScoreLoss(Objective):
    """How far scores are from the numbers in the data, as the model's own loss says it."""

    def check(self, model: RootsWithHead, windows: PackedWindows) -> None:
        """Check that each text has a number that the model's scores are for.

        Raises:
            InputError: one has none, or a probability is not from 0 to 1.
        """
        assert isinstance(model, RootsForScore)
        right_N = np.full(1, np.nan)
        if windows.scores is not None:
            right_N = windows.scores[windows.targets != IGNORED_LABEL]
        outside_N = right_N[(right_N < 0) | (right_N > 1)]
        if np.isnan(right_N).any() or (model.is_probability and len(outside_N)):
            raise InputError(
                f"holds the number {outside_N[0]:g}, and the model's score is a probability from 0 to 1"
                if len(outside_N)
                else "has records without a number to learn",
                where=recipe_key("data", "train"),
                remedy="Divide the numbers by the largest. Or let the model give the number itself: in its "
                "config.json set problem_type to regression, and leave sentence_transformers out."
                if len(outside_N)
                else "Give each record a number.",
            )

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        hidden_BTW = model.model(**batch.inputs, use_cache=False).last_hidden_state
        total, shown = _mean(model, hidden_BTW, batch, score_distance(model, batch))
        return Loss(total, {"score_loss": shown})


def _mean(
    model: RootsWithHead, hidden_BTW: Tensor, batch: Batch, distance: Distance
) -> tuple[Tensor, Tensor]:
    """Return the mean of a distance at a batch's scored positions, with gradients and without."""
    scored_NW = model.states_at(hidden_BTW, batch.scored_BT, batch.segment_ids_BT)
    total, terms_L = head_loss(model, scored_NW, lambda *chunk: (distance(*chunk),), (1.0,))
    return total, terms_L[0]


def text_distance(batch: Batch) -> Distance:
    """Return what gives the negative log-likelihood of the batch's targets."""
    targets_N = batch.targets_N
    return lambda logits_nV, part: cross_entropy_sum(logits_nV, targets_N[part])


def score_distance(model: RootsWithHead, batch: Batch) -> Distance:
    """Return what gives the distance of scores from the batch's numbers, by the model's own loss."""
    assert isinstance(model, RootsForScore)
    assert batch.scores_BT is not None
    right_N = batch.scores_BT[batch.scored_BT]
    return lambda scores_n1, part: model.label_loss(scores_n1.float(), right_N[part]) * len(scores_n1)


def cross_entropy(model: RootsWithHead, hidden_BTW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy at a batch's scored positions, with gradients and without."""
    return _mean(model, hidden_BTW, batch, text_distance(batch))


def cross_entropy_sum(logits_nV: Tensor, targets_n: Tensor) -> Tensor:
    """Return the negative log-likelihood of the targets, summed."""
    return -log_probs_at(logits_nV, targets_n[:, None]).sum()


class TrainingStep(nn.Module):
    """Model and objective under one root, as wrappers for several processes want them.

    They take part by what happens around a module's forward pass, and objectives call parts of the model.
    """

    def __init__(self, model: RootsWithHead, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms, in containers that wrappers look into."""
        loss = self.objective(self.model, batch)
        return loss.total, loss.parts
