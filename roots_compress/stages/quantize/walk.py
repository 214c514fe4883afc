"""Walks a model block by block: fold, observe, round, and go on from the rounded block.

Each layer is calibrated on the outputs of the quantized layers before it. So it sees their errors, and error
compensation corrects part of them. Memory holds the model, one layer's copy with its Gram matrices, the
residual stream of the calibration text, and the integers made so far.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import ResidualStream
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.blocks.attention import AttentionBlock
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.layer import RootsLayer
from roots_compress.models.quantized import Format, QuantizedLinear
from roots_compress.progress import track
from roots_compress.stages.quantize.cache import observed_cache
from roots_compress.stages.quantize.gptq import Compensation
from roots_compress.stages.quantize.groups import group_size_of
from roots_compress.stages.quantize.inputs import BoundInput, SeenInput, bound_inputs, observe
from roots_compress.stages.quantize.plan import RoundingPlan
from roots_compress.stages.quantize.rounding import QuantizedMatrix, quantize_matrix
from roots_compress.stages.quantize.smoothing import output_error

BITS: dict[Format, int] = {"w8a8": 8, "w8": 8, "w4": 4}


@dataclass
class Rounded:
    """The results of the walk.

    Attributes:
        state: every tensor of the quantized layers, under its name in the model's state dict, on the CPU.
        formats: the storage format of each quantized module.
        group_sizes: how many weights share a scale, of each module in groups.
        fixed_inputs: the modules whose input has one scale for all tokens.
        errors: each quantized module's relative output error on sampled inputs, its input rounded token by
            token even if it has one scale; for a table used only for lookups, its rows' error.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    group_sizes: dict[str, int] = field(default_factory=dict)
    fixed_inputs: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, matrix: QuantizedMatrix, error: float) -> None:
        """Record a matrix's format and error, but not its tensors."""
        self.formats[name], self.errors[name] = matrix.format, error
        if matrix.format != "w8a8":
            self.group_sizes[name] = matrix.levels.shape[-1]

    def add(self, name: str, matrix: QuantizedMatrix, error: float) -> None:
        """Record a matrix outside the layers."""
        self.note(name, matrix, error)
        self.state.update({f"{name}.{key}": tensor.cpu() for key, tensor in matrix.buffers().items()})


@torch.no_grad()
def round_layers(
    model: RootsWithHead,
    windows: PackedWindows,
    config: QuantizeConfig,
    plan: RoundingPlan,
    *,
    device: str,
    events: Events,
) -> tuple[Rounded, ResidualStream]:
    """Quantize every layer; the model is not changed.

    Returns:
        The results, and the residual stream after the last quantized layer.
    """
    rounded = Rounded()
    stream = ResidualStream(model, windows, device=device)
    layers = track(model.model.all_layers(), events, "quantizing layers")
    for index, original in enumerate(stream.passing(layers)):
        layer = copy.deepcopy(original)
        prefix = f"{model.config.spec.layer_path(index)}."
        for half in layer.halves:
            # Texts that are read at once gain by a fixed scale; a decoder's single tokens do not.
            reads_only = layer.feeds_decoder or not model.can_generate()
            inputs = list(bound_inputs(half))
            # Everything is folded before anything is rounded: the producer of one input is a consumer of
            # another.
            for each in inputs:
                if each.producers and (scale_C := plan.scales.get(prefix + each.name)) is not None:
                    each.fold(scale_C)
            for each, seen in zip(inputs, observe(half, stream, prefix[:-1]), strict=True):
                chosen = plan.format_of(prefix + each.name)
                fixed = chosen == "w8a8" and reads_only and each.spec.share == 1
                scale = seen.fixed_scale if fixed else None
                _round_input(layer, each, seen, prefix, chosen, scale, config, rounded)
            if config.cache == "int8" and isinstance(half.block, AttentionBlock):
                # Now folded and quantized, it computes the keys and values that a graph will cache.
                with observed_cache(half.block, model.config.spec.max_positions) as cache:
                    stream.add(half, stream.contributions(half))
                rounded.state.update(cache.state(f"{prefix}{half.name}.cache_rounding"))
            else:
                stream.add(half, stream.contributions(half))
        rounded.state.update({prefix + name: value.cpu() for name, value in layer.state_dict().items()})
    return rounded, stream


def _round_input(
    layer: RootsLayer,
    each: BoundInput,
    seen: SeenInput,
    prefix: str,
    weight_format: Format,
    input_scale: Tensor | None,
    config: QuantizeConfig,
    rounded: Rounded,
) -> None:
    """Replace the linear layers that read an input by quantized ones.

    These round it by `input_scale`, or by a scale for each token if that is None.
    """
    gram_CC = seen.statistics.gram if config.compensate else None
    compensation = None if gram_CC is None else Compensation(gram_CC)
    for name, linear in each.consumers.items():
        weight_RC = linear.weight
        size = group_size_of(config.group_size, weight_format, weight_RC.shape[1])
        if compensation is None:
            quantized = quantize_matrix(weight_RC, weight_format, size, importance_C=seen.mean_square)
        else:
            quantized = compensation.round(weight_RC, weight_format, size)
        rounded.note(prefix + name, quantized, output_error(seen.sample, weight_RC, quantized))
        if input_scale is not None:
            rounded.fixed_inputs.append(prefix + name)
        layer.set_submodule(name, quantized_linear(linear, quantized, input_scale))


def quantized_linear(
    linear: nn.Linear, quantized: QuantizedMatrix, input_scale: Tensor | None = None
) -> QuantizedLinear:
    """Return the module for a linear layer with a quantized matrix."""
    rows, width = linear.weight.shape
    size = quantized.levels.shape[-1]  # in w8a8 the whole row, which has no groups
    fixed = input_scale is not None
    module = QuantizedLinear(width, rows, linear.bias is not None, quantized.format, size, fixed_input=fixed)
    tensors = quantized.buffers()
    if input_scale is not None:
        tensors["input_scale"] = input_scale
    if linear.bias is not None:
        tensors["bias"] = linear.bias.detach()
    module.load_state_dict(tensors)
    return module.to(linear.weight.device).eval()
