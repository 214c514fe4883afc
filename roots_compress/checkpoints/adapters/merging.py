"""Adding an adapter to its base: the sums of peft's `merge_and_unload`, in float32.

Shape legend: O outputs, I inputs of a matrix, R rank, E experts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from roots_compress.checkpoints.adapters.changes import Adapter, Bias, Change, LowRank, Rows
from roots_compress.io.safetensors_header import TensorEntry

Take = Callable[[str], Tensor]


def adapted(adapter: Adapter, take: Take, read: Callable[[str, TensorEntry], Tensor]) -> Take:
    """Return a function that reads a base's tensor with the adapter's change.

    Args:
        adapter: the adapter.
        take: returns a tensor of the base.
        read: reads a tensor of a file.
    """

    def taken(name: str) -> Tensor:
        tensor, change = take(name), adapter.changes.get(name)
        if change is None:
            return tensor
        return _changed(tensor.float(), change, lambda part: read(part, adapter.entries[part]))

    return taken


def _changed(base: Tensor, change: Change, take: Take) -> Tensor:
    match change:
        case Rows():
            places = torch.tensor(change.places, dtype=torch.long)
            return base.index_copy(0, places, take(change.rows).float())
        case Bias():
            return base + take(change.added).float() * change.scale
        case LowRank():
            total = base + _product(change, take)
            return total if change.magnitude is None else _stretched(total, change, take(change.magnitude))


def _product(change: LowRank, take: Take) -> Tensor:
    """Return the update of a matrix, or of all experts' matrices."""
    down, up = take(change.down).float(), take(change.up).float()
    if not change.experts:
        added = up @ down
        return (added.T if change.turned else added) * change.scale
    down_ERI = down.unflatten(0, (change.experts, -1))
    up_ORE = up.unflatten(1, (-1, change.experts))
    if change.expert is not None:
        number, parts = change.part
        up_OR = up_ORE[..., change.expert].chunk(parts)[number]
        added_OI: Tensor = (up_OR @ down_ERI[change.expert]) * change.scale
        return added_OI
    added_EOI = torch.einsum("ore,eri->eoi", up_ORE, down_ERI) * change.scale
    return added_EOI.mT if change.turned else added_EOI


def _stretched(total: Tensor, change: LowRank, lengths_O: Tensor) -> Tensor:
    """Return a matrix with other lengths of the weights of each output."""
    inputs = 0 if change.turned else 1
    factor_O = lengths_O.float() / torch.linalg.norm(total, dim=inputs)
    stretched: Tensor = factor_O.unsqueeze(inputs) * total
    return stretched
