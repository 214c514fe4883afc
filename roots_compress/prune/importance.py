"""Our scores in the form that torch-pruning asks for: one number for each channel of a dependency group."""

from __future__ import annotations

import torch
import torch_pruning as tp
from torch import Tensor, nn

from roots_compress.prune import scores


class MagnitudeImportance(tp.importance.Importance):
    """The norm of all weights of a channel, in every matrix that the dependency graph ties it to.

    Args:
        units: how many units the root's channels form. A matrix with fewer channels than the root (keys and
            values that several query heads share) spreads each unit's weights evenly over those of the root.
    """

    def __init__(self, units: int) -> None:
        self.units = units

    @torch.no_grad()
    def __call__(self, group: tp.dependency.Group) -> Tensor:
        """Return the score of each channel of the root."""
        channels = len(group[0].idxs)
        parts = []
        for dependency, indices in group:
            layer = dependency.target.module
            if isinstance(layer, nn.Linear):
                columns = dependency.handler is tp.prune_linear_in_channels
                squares = layer.weight.double().square().sum(dim=0 if columns else 1)[indices]
                parts.append(self._spread(squares, channels))
        return scores.magnitude(parts)

    def _spread(self, squares: Tensor, channels: int) -> Tensor:
        if len(squares) == channels:
            return squares
        each = channels // self.units
        return (squares.view(self.units, -1).sum(dim=1) / each).repeat_interleave(each)


class ActivationImportance(tp.importance.Importance):
    """Column norm times input norm of the projection that reads the channels, the root of the group.

    Args:
        squared_norms: sum of squares of each of the root's input channels on calibration text.
    """

    def __init__(self, squared_norms: Tensor) -> None:
        self.squared_norms = squared_norms

    @torch.no_grad()
    def __call__(self, group: tp.dependency.Group) -> Tensor:
        """Return the score of each channel of the root."""
        root = group[0].dep.target.module
        return scores.activation(root.weight, self.squared_norms)[group[0].idxs]
