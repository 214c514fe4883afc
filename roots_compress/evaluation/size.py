"""The size of an artifact: bytes on disk, and parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto
from torch import nn

from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import QuantizedWeight
from roots_compress.runtime.onnx.graph_folder import GRAPH_SUFFIX, graph_files, tensors_of

GROUPS = (
    "embeddings",
    "attention",
    "linear attention",
    "convolution",
    "MLP",
    "experts",
    "norms",
    "head",
    "other",
)
"""Groups in the order of reports."""


def graph_bytes(folder: Path) -> int:
    """Return the bytes of every file the graph needs to run: itself, graphs beside it, and external data.

    The tokenizer and the JSON files beside it are not counted: they are the same for every stage of a run.

    Raises:
        InputError: the folder is not a whole graph; see `graph_files`.
    """
    return sum(path.stat().st_size for path in graph_files(folder))


def bytes_by_group(folder: Path, model: RootsWithHead) -> dict[str, int]:
    """Return the bytes of `graph_bytes` by groups of tensors.

    `embeddings` are the tables of tokens, positions and token types, also if the head shares the first;
    `attention`, `linear attention`, `convolution`, `MLP` and `experts` are such blocks; `norms` all norms;
    `head` the head's own tensors; `other` constants and the graphs' operators themselves.

    Raises:
        InputError: the folder is not a whole graph.
    """
    group_of = _groups(model)
    files = graph_files(folder)
    groups = dict.fromkeys(GROUPS, 0)
    seen = set()
    for graph in (path for path in files if path.suffix == GRAPH_SUFFIX):
        for tensor in tensors_of(onnx.load(graph, load_external_data=False)):
            size = len(tensor.raw_data) or tensor.ByteSize()
            if tensor.data_location == TensorProto.EXTERNAL:
                place = {entry.key: entry.value for entry in tensor.external_data}
                # Two graphs may read one tensor.
                extent = place["location"], place.get("offset", "0")
                size = 0 if extent in seen else int(place.get("length", 0))
                seen.add(extent)
            groups[group_of(tensor.name)] += size
    groups["other"] += graph_bytes(folder) - sum(groups.values())
    return {name: size for name, size in groups.items() if size}


def _groups(model: RootsWithHead) -> Callable[[str], str]:
    """Return a function from an initializer's name, which begins with a parameter's, to its group."""
    blocks = {f"{model.config.spec.path(place)}.": op.group for place, op in model.config.spec.blocks()}
    heads = tuple({name.split(".")[0] for name in model.state_dict()} - {"model"})

    def group_of(name: str) -> str:
        *modules, _ = name.split(".")
        if any("norm" in module for module in modules):
            return "norms"
        if any(module.startswith("embed_") for module in modules):
            return "embeddings"
        if heads and name.startswith(heads):
            return "head"
        return next((group for path, group in blocks.items() if name.startswith(path)), "other")

    return group_of


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights the model computes with; tied ones count once.

    A quantized matrix counts as rows times width; scales and zero points do not count.
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
