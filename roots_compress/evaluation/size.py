"""How large an artifact is: bytes on disk, and parameters."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from roots_compress.models.quantized import QuantizedWeight
from roots_compress.runtime.graph_folder import graph_files


def graph_bytes(folder: Path) -> int:
    """Return the bytes of every file the graph needs to run: itself, graphs beside it, and external data.

    The tokenizer and the JSON files beside it are not counted: they are the same for every stage of a run.

    Raises:
        InputError: the folder is not a whole graph; see `graph_files`.
    """
    return sum(path.stat().st_size for path in graph_files(folder))


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights the model computes with; tied ones count once.

    A quantized matrix counts as its rows times its width, whatever it is packed into; its scales and zero
    points are part of the format and do not count.
    """
    plain = sum(parameter.numel() for parameter in model.parameters())
    quantized = 0
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            bias = getattr(module, "bias", None)
            quantized += module.rows * module.width + (0 if bias is None else bias.numel())
    return plain + quantized


def stored_bytes(model: nn.Module) -> int:
    """Return the bytes of all of a model's tensors, shared ones once."""
    unique = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in unique.values())
