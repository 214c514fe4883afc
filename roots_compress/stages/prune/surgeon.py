"""Optimal brain surgeon: taking input channels out of a projection, one batch of units after another.

Each removal is followed by the least-squares refit of what is left, so that the next one is judged by what
cannot be made up for. Shape legend: O outputs, C all input channels of the projection, K those still there,
U units of S neighbouring channels each, B channels that leave together.
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
    """A projection from which units were taken: its state, and what the removals cost.

    The optimal brain surgeon (Hassibi and Stork 1992, "Second order derivatives for network pruning") for
    groups of weights, as ZipLM (Kurtic et al. 2023, arXiv:2302.04089) uses it for structures: with `H` the
    Gram matrix of the inputs plus a ridge, taking channels `B` out and refitting the others raises the
    squared error by `tr(W_B (H^-1_BB)^-1 W_B.T)`; a rank-B update gives the weights and the inverse of what
    stays.

    Attributes:
        weight: `OK`, float64: refitted.
        inverse: `KK`, float64: of the damped Gram matrix of the channels that are left.
        units: the numbers of the units that are left, in rising order.
        lost: squared error of the outputs, summed over the calibration rows, ridge included.
    """

    weight: Tensor
    inverse: Tensor
    units: Tensor
    lost: float

    @classmethod
    def begin(cls, weight_OC: Tensor, gram_CC: Tensor, units: int, *, damping: float) -> Self:
        """Return the projection as it is, its channels in `units` of equal size.

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
        """Return what the squared error would rise by if each unit left alone, `U`, all at least 0."""
        count, size = len(self.units), self.size
        if size == 1:
            return self.weight.square().sum(dim=0) / self.inverse.diagonal()
        each = torch.arange(count, device=self.units.device)
        blocks_USS = self.inverse.view(count, size, count, size)[each, :, each]
        weight_USO = self.weight.T.reshape(count, size, -1)
        found_U: Tensor = (torch.linalg.inv(blocks_USS) @ weight_USO).mul_(weight_USO).sum(dim=(1, 2))
        return found_U.clamp(min=0)

    def without(self, places: Tensor) -> Operation:
        """Return the projection without the units at these places of `units`, refitted."""
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
        """Return the projection without the `count` cheapest units of each equal group, judged one by one."""
        costs_GS = self.costs().view(groups, -1)
        first_G = torch.arange(0, len(self.units), costs_GS.shape[1], device=costs_GS.device)
        return self.without((first_G[:, None] + costs_GS.argsort(dim=1, stable=True)[:, :count]).flatten())


@dataclass(frozen=True)
class Trial:
    """One cut of a block, which compares the costs of all its cuts with the gradients."""

    lost: Callable[[Tensor], Tensor]
    """What the cut, refit and all, takes from the output, `RO`, for input rows."""
    cost: float
    """As estimated, in nats per token."""


def removal_scores(operation: Operation, kept: int, *, at_once: int, groups: int = 1) -> Tensor:
    """Return a score for each unit, `U`: the squared error at which it leaves, when the cheapest leave first.

    Args:
        operation: before any unit left.
        kept: units that stay in any case; theirs is the error at which the next one would leave.
        at_once: units of a group that leave together before the others are judged again.
        groups: equal groups of neighbouring units; all lose equally many.
    """
    scores_U = torch.zeros(len(operation.units), dtype=torch.float64, device=operation.weight.device)
    while len(operation.units) > kept:
        count = min(at_once, (len(operation.units) - kept) // groups)
        rest = operation.without_cheapest(count, groups=groups)
        left = torch.isin(operation.units, rest.units, invert=True)
        scores_U[operation.units[left]] = rest.lost
        operation = rest
    costs_U = operation.costs()
    # Above all that left, also where staying costs nothing (a dead projection).
    scores_U[operation.units] = operation.lost + costs_U
    scores_U[operation.units] += torch.finfo(torch.float64).eps * max(1.0, operation.lost)
    return scores_U


def narrowing(operation: Operation, multiple: int, *, groups: int = 1) -> Iterator[Operation]:
    """Yield the projection at every multiple of `multiple` units a group, from all there are to the least.

    The units that leave first also leave at every smaller width.
    """
    yield operation
    while (units := len(operation.units) // groups) > multiple:
        operation = operation.without_cheapest(units % multiple or multiple, groups=groups)
        yield operation


def shapes(
    operation: Operation, steps: Sequence[int], parts: Sequence[int] = (), *, groups: int = 1
) -> Iterator[tuple[tuple[int, ...], Operation]]:
    """Yield the projection in every shape, with the units that each group of each axis keeps, all first.

    Args:
        operation: its units are those of the first axis.
        steps: for each axis, what its units are a multiple of.
        parts: for each axis but the first, the units into which one of the axis before it divides: as query
            heads are parts of key/value groups. Every whole loses its cheapest parts.
        groups: equal groups of neighbouring units; all lose equally many.
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
