"""A copy of a model that shares what is not changed, so that a cut does not hold every weight twice."""

from __future__ import annotations

import copy

import torch
from torch import nn

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
