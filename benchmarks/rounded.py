"""Models for benchmarks whose matrices are rounded as they are, without calibration text."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import Format, QuantizedWeight
from roots_compress.stages.quantize.rounding import quantize_matrix

GROUP_SIZE = 64


@torch.no_grad()
def rounded(
    model: RootsWithHead, formats: Mapping[str, Format], group_size: int = GROUP_SIZE
) -> RootsWithHead:
    """Return a model of the same weights, the named matrices in their formats."""
    config = copy.deepcopy(model.config)
    config.quantization = {"group_size": group_size, "formats": dict(formats)}
    made: RootsWithHead = make_model(config).eval()
    state = made.state_dict()
    state |= {name: tensor for name, tensor in model.state_dict().items() if name in state}
    for name, module in made.named_modules():
        if isinstance(module, QuantizedWeight):
            matrix = quantize_matrix(model.get_parameter(f"{name}.weight"), module.format, group_size)
            state |= {f"{name}.{part}": tensor for part, tensor in matrix.buffers().items()}
    made.load_state_dict(state)
    return made
