"""A training step as a module: the model, what it is trained by, and a forward pass that gives the loss."""

from __future__ import annotations

import copy

import torch
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

    def twin(self, device: str) -> TrainingStep:
        """Return a step of the same modules, its tensors without content on a device; `meta` has no storage.

        Tied parameters stay tied.
        """
        return copy.deepcopy(self, {id(tensor): emptied(tensor, device) for tensor in self.tensors()})

    def tensors(self) -> list[Tensor]:
        """Return parameters and buffers, tied ones once."""
        return [*self.parameters(), *self.buffers()]


def emptied(tensor: Tensor, device: str) -> Tensor:
    """Return a tensor or parameter of the same kind and shape, without content."""
    empty = torch.empty_like(tensor, device=device, requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
