"""Our scores in torch-pruning's form: one number for each channel of a dependency group.

Several channels may form one unit that is kept or removed as a whole (a head); `scores.pool` recovers its
score.
"""

from __future__ import annotations

import torch
import torch_pruning as tp
from torch import Tensor, nn

from roots_compress.stages.prune import scores
from roots_compress.stages.prune.surgeon import Operation, removal_scores


class MagnitudeImportance(tp.importance.Importance):
    """The norm of all weights of a channel, in every matrix that the dependency graph ties it to.

    Args:
        units: the number of units that the root's channels form. A matrix with fewer channels than the root
            (keys and values that several query heads share) spreads each unit's weights evenly over those of
            the root.
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


class EnergyImportance(tp.importance.Importance):
    """The energy of the residual stream in each of its channels.

    Args:
        energies: of each channel of the root, the sum of squares on calibration text.
    """

    def __init__(self, energies: Tensor) -> None:
        self.energies = energies

    def __call__(self, group: tp.dependency.Group) -> Tensor:
        """Return the score of each channel of the root."""
        # Rounding may leave the energy of an empty channel below zero.
        return self.energies[group[0].idxs].clamp(min=0)


class TaylorImportance(tp.importance.Importance):
    """The first-order effect on the loss of removing a unit of the root's input channels.

    Args:
        contributions_NC: for each window and channel of the root, its input times the loss's gradient.
    """

    def __init__(self, contributions_NC: Tensor, units: int) -> None:
        self.contributions_NC, self.units = contributions_NC, units

    @torch.no_grad()
    def __call__(self, group: tp.dependency.Group) -> Tensor:
        """Return the score of each channel of the root."""
        channels = self.contributions_NC.shape[1]
        return _each_channel(scores.taylor(self.contributions_NC, self.units), channels)[group[0].idxs]


class SurgeonImportance(tp.importance.Importance):
    """The error of the root's outputs at which a unit is removed: cheapest first, the others refitted.

    Args:
        gram_CC: Gram matrix of the root's input.
        kept: the number of units that will stay; their order does not matter.
        at_once: units of a group that are removed before the others are scored again.
        damping: ridge of the refit.
        groups: equal groups of neighbouring units, which all lose equally many.
    """

    def __init__(
        self, gram_CC: Tensor, units: int, *, kept: int, at_once: int, damping: float, groups: int = 1
    ) -> None:
        self.gram_CC, self.units, self.groups = gram_CC, units, groups
        self.kept, self.at_once, self.damping = kept, at_once, damping

    @torch.no_grad()
    def __call__(self, group: tp.dependency.Group) -> Tensor:
        """Return the score of each channel of the root."""
        weight_OC = group[0].dep.target.module.weight
        operation = Operation.begin(weight_OC, self.gram_CC, self.units, damping=self.damping)
        scores_U = removal_scores(operation, self.kept, at_once=self.at_once, groups=self.groups)
        return _each_channel(scores_U, weight_OC.shape[1])[group[0].idxs]


def _each_channel(scores_U: Tensor, channels: int) -> Tensor:
    """Spread each unit's score over its channels, so that their root sum of squares is the unit's score."""
    size = channels // len(scores_U)
    scores_C: Tensor = (scores_U / size**0.5).repeat_interleave(size)
    return scores_C
