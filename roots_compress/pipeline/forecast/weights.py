"""Bytes of models that are not made yet, counted on models without storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from roots_compress.checkpoints.checkpoint import model_without_weights
from roots_compress.evaluation.size import graph_bytes
from roots_compress.export.exporter import write_graph
from roots_compress.io.temporary import temporary_folder
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast.costs import Line
from roots_compress.pipeline.forecast.stand_ins import with_few_layers
from roots_compress.stages.expected import ExpectedModel

DEPTHS, TOKENS = (1, 2), 256
"""Layers of a stack in the graphs for measuring the bytes besides weights; and their most tokens."""


def weight_bytes(model: ExpectedModel) -> int:
    """Return the bytes of all of a model's tensors, shared ones once."""
    return _bytes_of(_made(model, model_without_weights))


def graph_overhead(model: ExpectedModel, *, portable: bool) -> int:
    """Return the bytes of a model's graph besides its weights, from graphs of a few layers.

    Raises:
        StageError: the model cannot be exported.
    """
    points = []
    for depth in DEPTHS:
        spec = with_few_layers(model.spec, depth)
        if spec.source is None:  # Otherwise its decoder names the first token by its number.
            spec = spec.with_embeddings(vocabulary=min(TOKENS, spec.embeddings.vocabulary))
        made = _made(ExpectedModel(spec, _fitting(model, spec), model.weight_bytes), make_model)
        with temporary_folder() as folder:
            write_graph(made, folder.resolve(), portable=portable)
            points.append((float(len(spec.layers)), float(graph_bytes(folder) - _bytes_of(made))))
    return round(Line.through(points[0], points[1]).at(len(model.spec.layers)))


def _made(model: ExpectedModel, make: Callable[[RootsConfig], RootsWithHead]) -> RootsWithHead:
    quantization = None if model.quantization is None else dict(model.quantization)
    made: RootsWithHead = make(RootsConfig(spec=model.spec, quantization=quantization)).eval()
    made.tie_weights()
    if model.weight_bytes == torch.float16.itemsize:
        nn.Module.to(made, torch.float16)
    return made


def _bytes_of(model: RootsWithHead) -> int:
    stored = model.state_dict().keys()
    # A tied table is one parameter, under its first name.
    tensors = model.named_tensors().items()
    return sum(each.numel() * each.element_size() for name, each in tensors if name in stored)


def _fitting(model: ExpectedModel, spec: ModelSpec) -> dict[str, Any] | None:
    """Return the formats of a cut model's matrices: those of the same names in the full model."""
    if model.quantization is None:
        return None
    names = spec.matrices().keys()
    return {
        key: {name: each for name, each in value.items() if name in names}
        if isinstance(value, dict)
        else value
        for key, value in model.quantization.items()
    }
