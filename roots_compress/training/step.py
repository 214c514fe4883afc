"""A training step as a module: the model, what it is trained by, and a forward pass that gives the loss."""

from __future__ import annotations

from torch import Tensor, nn

from roots_compress.models.heads import RootsWithHead
from roots_compress.training.batches import Batch
from roots_compress.training.objective import Objective


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
