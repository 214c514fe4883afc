"""Copies of a model that share its unchanged weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from roots_compress.models.device import Precision, autocast_dtype
from roots_compress.models.heads import RootsWithHead


def sharing_copy(model: RootsWithHead) -> RootsWithHead:
    """Return a copy that shares the model's parameters until it replaces them.

    A cut replaces the parameters that it cuts. To change a parameter in place, call `part_with` first,
    otherwise the model changes too.
    """
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


@torch.no_grad()
def part_with(model: RootsWithHead, twin: RootsWithHead) -> None:
    """Give a copy its own parameters, apart from the model's; tied ones stay tied."""
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
    """Return a copy for inference whose linear layers hold their weights as autocast converts them.

    Under autocast it computes the same bits, without converting these weights again for each product; on
    another device they take half of the bytes. A weight that is also an embedding table is not converted. If
    nothing is converted the model itself is returned.

    Args:
        model: one with float weights.
        replace: change the model itself, so that memory never holds both.
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
