"""Copies of a model that share the weights that are not changed."""

from __future__ import annotations

import copy

import torch
from torch import nn

from roots_compress.models.device import Precision, autocast_dtype
from roots_compress.models.heads import RootsWithHead


def sharing_copy(model: RootsWithHead) -> RootsWithHead:
    """Return a copy whose parameters are the model's own, each until it is replaced.

    A cut replaces the parameters that it cuts. What changes a parameter in place would change the model too:
    call `part_with` first.
    """
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


@torch.no_grad()
def part_with(model: RootsWithHead, twin: RootsWithHead) -> None:
    """Give a copy parameters apart from those of the model that it was made from; tied ones stay tied."""
    shared = {id(parameter) for parameter in twin.parameters()}
    apart: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in shared:
                if id(parameter) not in apart:
                    apart[id(parameter)] = nn.Parameter(parameter.clone(), parameter.requires_grad)
                setattr(module, name, apart[id(parameter)])


@torch.no_grad()
def as_autocast_reads(model: RootsWithHead, precision: Precision, *, replace: bool = False) -> RootsWithHead:
    """Return a copy, not to be trained, whose linear layers hold what autocast makes of their weights.

    Under autocast it computes the same bits, without converting these weights again for each product; where
    the copy goes to another device, they take half of the bytes there. A weight that is a table of embeddings
    too stays as it is. Where nothing is converted the model itself is returned.

    Args:
        model: float weights.
        replace: change the model itself, of which the memory then never holds both.
    """
    if precision == "no":
        return model
    found = model if replace else sharing_copy(model)
    tables = {id(each.weight) for each in found.modules() if isinstance(each, nn.Embedding)}
    for module in found.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in tables:
            for name, parameter in list(module.named_parameters(recurse=False)):
                halved = parameter.detach().to(autocast_dtype(precision))
                setattr(module, name, nn.Parameter(halved, requires_grad=False))
    return found
