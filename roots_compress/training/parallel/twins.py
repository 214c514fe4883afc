"""Modules of the same structure without weights, which another process fills."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module, device: str, shared: Iterable[Tensor] = ()) -> Module:
    """Return a module of the same structure, with empty tensors on a device; `meta` has no storage.

    Tied parameters stay tied. The weights are not copied on the way.

    Args:
        shared: tensors of the module that the new one shares.
    """
    kept = {id(tensor): tensor for tensor in shared}
    empty = {id(each): emptied(each, device) for each in tensors_of(module) if id(each) not in kept}
    return copy.deepcopy(module, {**empty, **kept})


def fill(module: nn.Module, content: Callable[[Tensor], Tensor]) -> None:
    """Replace a module's tensors on the meta device; tied parameters stay tied."""
    made: dict[Tensor, Tensor] = {}
    for each in module.modules():
        holders: tuple[dict[str, Any], ...] = (each._parameters, each._buffers)
        for holder in holders:
            for name, tensor in holder.items():
                if tensor is not None and tensor.is_meta:
                    if tensor not in made:
                        made[tensor] = content(tensor)
                    holder[name] = made[tensor]


def sent(whole: Tensor | None, like: Tensor, device: str) -> Tensor:
    """Return a tensor of process 0 in every process."""
    import torch.distributed as dist

    tensor = emptied(like, device) if whole is None else whole.detach().to(device)
    dist.broadcast(tensor, src=0)
    return tensor


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, tied ones once."""
    return [*module.parameters(), *module.buffers()]


def emptied(tensor: Tensor, device: str) -> Tensor:
    """Return a tensor or parameter of the same kind and shape, without content."""
    empty = torch.empty_like(tensor, device=device, requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
