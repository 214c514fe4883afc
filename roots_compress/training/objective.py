"""Training objectives: the interface, and plain cross-entropy.

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
"""From a model's logits, vectors or scores at some positions to their summed distance from the targets."""


@dataclass(frozen=True)
class Loss:
    """A loss and its terms, each a mean over the scored positions of its batch."""

    total: Tensor
    parts: dict[str, Tensor]
    """The unweighted terms by name, detached."""


class Objective(nn.Module):
    """A training loss.

    Its own parameters that require gradients are trained with the model and kept in the training state.
    Every term must be a mean over the batch's scored positions: the loop weighs micro-batches by their number
    of scored positions, which makes accumulated gradients those of one large batch. All randomness must
    follow from the batch's index in training (`Batch.first`), so that an interrupted training resumes
    exactly.
    """

    whole_micro_batches: bool = False
    """Whether a micro-batch must not be split between processes."""

    @property
    def running_teacher(self) -> RootsWithHead | None:
        """The frozen model that runs at every step, if any."""
        return None

    def taught_by(self, teacher: RootsWithHead) -> Self:
        """Return the objective with the same tensors, but with another such model."""
        raise NotImplementedError

    def read_files(self) -> Json:
        """Return the identity of the files read during training, which processes compare."""
        return None

    def check(self, model: RootsWithHead, windows: PackedWindows) -> None:
        """Check that a model can learn from windows.

        Raises:
            InputError: their targets do not fit its outputs.
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
    """The distance of scores from the numbers in the data, by the model's own loss."""

    def check(self, model: RootsWithHead, windows: PackedWindows) -> None:
        """Check that each text has a number in the range of the model's scores.

        Raises:
            InputError: one has none, or a probability is not from 0 to 1.
        """
        assert isinstance(model, RootsForScore)
        right_N = np.full(1, np.nan)
        if windows.scores is not None:
            right_N = windows.scores[windows.targets != IGNORED_LABEL]
        outside_N = right_N[(right_N < 0) | (right_N > 1)]
        if np.isnan(right_N).any() or (model.head.sigmoid and len(outside_N)):
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
    """Return the function for the negative log-likelihood of the batch's targets."""
    targets_N = batch.targets_N
    return lambda logits_nV, part: cross_entropy_sum(logits_nV, targets_N[part])


def score_distance(model: RootsWithHead, batch: Batch) -> Distance:
    """Return the function for the distance of scores from the batch's numbers, by the model's own loss."""
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
    """Model and objective in one module, as wrappers for several processes need them.

    The wrappers act around a module's forward pass, but objectives call parts of the model.
    """

    def __init__(self, model: RootsWithHead, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms, in containers that wrappers inspect."""
        loss = self.objective(self.model, batch)
        return loss.total, loss.parts
