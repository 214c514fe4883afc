"""Optimal brain surgeon: removes input channels of a projection, one batch of units after another.

After each removal the remaining weights are refitted by least squares, so the next units are scored by the
error that no refit repairs. Shape legend: O outputs, C all input channels of the projection, K the remaining
ones, U units of S neighbouring channels each, B channels that are removed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from roots_compress.stages.prune.refit import damped_inverse


@dataclass(frozen=True)
class Operation:
    """A projection with removed units: its state, and the cost of the removals.

    The optimal brain surgeon (Hassibi and Stork 1992, "Second order derivatives for network pruning") for
    groups of weights, as ZipLM (Kurtic et al. 2023, arXiv:2302.04089) uses it for structures: with `H` the
    Gram matrix of the inputs plus a ridge, removing channels `B` and refitting the others raises the
    squared error by `tr(W_B (H^-1_BB)^-1 W_B.T)`; a rank-B update gives the remaining weights and inverse.

    Attributes:
        weight: `OK`, float64: refitted.
        inverse: `KK`, float64: inverse of the damped Gram matrix of the remaining channels.
        units: the numbers of the remaining units, in rising order.
        lost: squared error of the outputs, summed over the calibration rows, ridge included.
    """

    weight: Tensor
    inverse: Tensor
    units: Tensor
    lost: float

    @classmethod
    def begin(cls, weight_OC: Tensor, gram_CC: Tensor, units: int, *, damping: float) -> Self:
        """Return the uncut projection, its channels in `units` of equal size.

        Raises:
            StageError: the Gram matrix is not finite.
        """
        inverse_CC = damped_inverse(gram_CC, damping=damping)
        return cls(weight_OC.detach().double(), inverse_CC, torch.arange(units, device=weight_OC.device), 0.0)

    @property
    def size(self) -> int:
        """Channels in a unit."""
        return self.weight.shape[1] // len(self.units)

    def costs(self) -> Tensor:
        """Return the rise of the squared error if each unit alone were removed, `U`, all at least 0."""
        count, size = len(self.units), self.size
        if size == 1:
            return self.weight.square().sum(dim=0) / self.inverse.diagonal()
        each = torch.arange(count, device=self.units.device)
        blocks_USS = self.inverse.view(count, size, count, size)[each, :, each]
        weight_USO = self.weight.T.reshape(count, size, -1)
        found_U: Tensor = (torch.linalg.inv(blocks_USS) @ weight_USO).mul_(weight_USO).sum(dim=(1, 2))
        return found_U.clamp(min=0)

    def without(self, places: Tensor) -> Operation:
        """Return the refitted projection without the units at these indices of `units`."""
        leaves = torch.zeros(len(self.units), dtype=torch.bool, device=self.units.device)
        leaves[places] = True
        gone_K = leaves.repeat_interleave(self.size)
        gone, kept = gone_K.nonzero().flatten(), (~gone_K).nonzero().flatten()
        inverse_BB = self.inverse[gone[:, None], gone]
        coupling_BK = self.inverse[gone[:, None], kept]
        weight_OB = self.weight[:, gone]
        solved_OB = torch.linalg.solve(inverse_BB, weight_OB, left=False)
        solved_BK = torch.linalg.solve(inverse_BB, coupling_BK)
        return Operation(
            self.weight[:, kept].addmm_(solved_OB, coupling_BK, alpha=-1),
            self.inverse[kept[:, None], kept].addmm_(coupling_BK.T, solved_BK, alpha=-1),
            self.units[~leaves],
            self.lost + max(0.0, float((solved_OB * weight_OB).sum())),
        )

    def without_cheapest(self, count: int, *, groups: int = 1) -> Operation:
        """Return the projection without the `count` cheapest units of each equal group, scored one by one."""
        costs_GS = self.costs().view(groups, -1)
        first_G = torch.arange(0, len(self.units), costs_GS.shape[1], device=costs_GS.device)
        return self.without((first_G[:, None] + costs_GS.argsort(dim=1, stable=True)[:, :count]).flatten())


@dataclass(frozen=True)
class Trial:
    """One cut of a block, which compares the costs of all its cuts with the gradients."""

    lost: Callable[[Tensor], Tensor]
    """The change of the output by the cut and refit, `RO`, for input rows."""
    cost: float
    """Its estimated cost, in nats per token."""


def removal_scores(operation: Operation, kept: int, *, at_once: int, groups: int = 1) -> Tensor:
    """Return each unit's score, `U`: the squared error at its removal, when the cheapest go first.

    Args:
        operation: before any removal.
        kept: units that always stay; their score is the error at the next removal.
        at_once: units of a group that are removed together before the others are scored again.
        groups: equal groups of neighbouring units, which all lose equally many.
    """
    scores_U = torch.zeros(len(operation.units), dtype=torch.float64, device=operation.weight.device)
    while len(operation.units) > kept:
        count = min(at_once, (len(operation.units) - kept) // groups)
        rest = operation.without_cheapest(count, groups=groups)
        left = torch.isin(operation.units, rest.units, invert=True)
        scores_U[operation.units[left]] = rest.lost
        operation = rest
    costs_U = operation.costs()
    # Above all removed ones, also if removal costs nothing (a dead projection).
    scores_U[operation.units] = operation.lost + costs_U
    scores_U[operation.units] += torch.finfo(torch.float64).eps * max(1.0, operation.lost)
    return scores_U


def narrowing(operation: Operation, multiple: int, *, groups: int = 1) -> Iterator[Operation]:
    """Yield the projection at every multiple of `multiple` units a group, from all units to the fewest.

    Units removed at one width are removed at every smaller width too.
    """
    yield operation
    while (units := len(operation.units) // groups) > multiple:
        operation = operation.without_cheapest(units % multiple or multiple, groups=groups)
        yield operation


def shapes(
    operation: Operation, steps: Sequence[int], parts: Sequence[int] = (), *, groups: int = 1
) -> Iterator[tuple[tuple[int, ...], Operation]]:
    """Yield the projection in every shape, with the kept units in each group of each axis, all first.

    Args:
        operation: one whose units are those of the first axis.
        steps: for each axis, the divisor of its number of units.
        parts: for each axis but the first, the units into which one of the axis before it divides: as query
            heads are parts of key/value groups. Every whole loses its cheapest parts.
        groups: equal groups of neighbouring units, which all lose equally many.
    """
    for each in narrowing(operation, steps[0], groups=groups):
        units = len(each.units)
        if not parts:
            yield (units // groups,), each
            continue
        part = torch.arange(parts[0], device=each.units.device)
        divided = replace(each, units=(each.units[:, None] * parts[0] + part).flatten())
        for kept, cut in shapes(divided, steps[1:], parts[1:], groups=units):
            yield (units // groups, *kept), cut
