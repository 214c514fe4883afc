"""Modules of the same structure without the weights, for another process to fill."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module, device: str) -> Module:
    """Return a module of the same structure, its tensors without content on a device; `meta` has no storage.

    Tied parameters stay tied. The weights are not copied on the way.
    """
    return copy.deepcopy(module, {id(tensor): emptied(tensor, device) for tensor in tensors_of(module)})


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, tied ones once."""
    return [*module.parameters(), *module.buffers()]


def emptied(tensor: Tensor, device: str) -> Tensor:
    """Return a tensor or parameter of the same kind and shape, without content."""
    empty = torch.empty_like(tensor, device=device, requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
