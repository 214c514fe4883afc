"""Walks a model half a layer at a time: observe, fold, choose formats, round, go on from what was rounded.

Each layer is calibrated on what the layers before it give once they are quantized, so that it sees, and with
error compensation makes up for part of, what they lost. Memory holds the model, one layer's copy with its
Gram matrices, the residual stream of the calibration text, and the integers made so far.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from roots_compress.data.windows import PackedWindows
from roots_compress.model.calibration import ResidualStream
from roots_compress.model.layers import RootsLayer
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.model.quantized import Format, QuantizedLinear
from roots_compress.quantize.cache import observed_cache
from roots_compress.quantize.config import QuantizeConfig
from roots_compress.quantize.gptq import compensated_matrix
from roots_compress.quantize.outliers import best_scale, input_error, output_error
from roots_compress.quantize.plan import int8_format
from roots_compress.quantize.rounding import QuantizedMatrix, quantize_matrix
from roots_compress.quantize.sites import Site, SiteInput, attention_sites, mlp_sites, observe_sites

BITS: dict[Format, int] = {"w8a8": 8, "w8": 8, "w4": 4}


@dataclass
class Rounded:
    """What the walk has made.

    Attributes:
        state: every tensor of the quantized layers, under its name in the model's state dict, on the CPU.
        formats: the storage format of each quantized module.
        errors: each quantized module's relative output error on sampled inputs, its input's rounding
            included.
        folded: names of the sites whose input channels were scaled.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Half:
    """Half a layer: its sites, and its contributions to the residual stream, computed when iterated."""

    sites: list[Site]
    forward: Callable[[], Iterable[Tensor]]

    def observe(self, stream: ResidualStream, layer: RootsLayer, name: str) -> list[SiteInput]:
        """Return what each site reads on the stream, which stays where it is."""
        after = (
            hidden_BTW.to(stream.device) + contribution_BTW
            for hidden_BTW, contribution_BTW in zip(stream.hidden, self.forward(), strict=True)
        )
        total_rows = sum(hidden_BTW[..., 0].numel() for hidden_BTW in stream.hidden)
        return observe_sites(layer, self.sites, after, name=name, total_rows=total_rows)


def halves(stream: ResidualStream, layer: RootsLayer, index: int, activation: str) -> tuple[Half, Half]:
    """Return the attention half and the MLP half of a layer."""
    return (
        Half(attention_sites(layer), lambda: stream.attention(layer, index)),
        Half(mlp_sites(layer, activation), lambda: stream.mlp(layer)),
    )


@torch.no_grad()
def round_layers(
    model: RootsForCausalLM,
    windows: PackedWindows,
    config: QuantizeConfig,
    *,
    eight_bit: set[str],
    device: str,
    console: Console,
) -> tuple[Rounded, ResidualStream]:
    """Quantize every layer; the model is left as it is.

    Args:
        model: a float32 model on `device`.
        windows: calibration text.
        config: an int8 or int4 scheme.
        eight_bit: full names of sites that int4 keeps in 8 bits.
        device: where to compute.
        console: shows progress.

    Returns:
        what was made, and the residual stream after the last quantized layer.
    """
    rounded = Rounded()
    stream = ResidualStream(model, windows, device=device)
    for index, original in enumerate(track(model.model.layers, "quantize", console=console)):
        layer = copy.deepcopy(original)
        prefix = f"model.layers.{index}."
        for half in halves(stream, layer, index, model.config.activation):
            inputs = half.observe(stream, layer, prefix[:-1])
            # All folding comes before any rounding: a site's producer is another's consumer.
            inputs = [
                _fold_site(site, seen, prefix + site.name, config, eight_bit, rounded)
                for site, seen in zip(half.sites, inputs, strict=True)
            ]
            for site, seen in zip(half.sites, inputs, strict=True):
                _round_site(layer, site, seen, prefix, config, eight_bit, rounded)
            # Quantized by now, and folded, the layer gives the keys and values that a graph will cache.
            with observed_cache(layer.self_attn) if config.cache == "int8" else nullcontext() as cache:
                stream.add(half.forward())
            if cache is not None and cache.seen:
                buffers = cache.buffers().items()
                rounded.state.update(
                    {f"{prefix}self_attn.cache_rounding.{key}": step for key, step in buffers}
                )
        rounded.state.update({prefix + name: value.cpu() for name, value in layer.state_dict().items()})
    return rounded, stream


def _fold_site(
    site: Site, seen: SiteInput, name: str, config: QuantizeConfig, eight_bit: set[str], rounded: Rounded
) -> SiteInput:
    """Fold a site's outliers where that pays, and return what the site reads then."""
    wanted = _first_choice(config, name in eight_bit)
    scale_C = best_scale(site, seen, wanted, config.group_size) if config.fold else None
    if scale_C is None:
        return seen
    site.fold(scale_C)
    rounded.folded.append(name)
    return seen.divided(scale_C)


def _round_site(
    layer: RootsLayer,
    site: Site,
    seen: SiteInput,
    prefix: str,
    config: QuantizeConfig,
    eight_bit: set[str],
    rounded: Rounded,
) -> None:
    """Choose a site's format and replace its layers by quantized ones."""
    chosen = _first_choice(config, prefix + site.name in eight_bit)
    if chosen == "w8a8":
        weights = [linear.weight for linear in site.consumers.values()]
        chosen = int8_format(config, input_error(seen.sample_SC, weights))
    for name, linear in site.consumers.items():
        quantized = round_matrix(linear.weight, chosen, config, seen)
        rounded.formats[prefix + name] = chosen
        rounded.errors[prefix + name] = output_error(seen.sample_SC, linear.weight, quantized)
        layer.set_submodule(name, quantized_linear(linear, quantized, config.group_size))


def _first_choice(config: QuantizeConfig, eight_bit: bool) -> Format:
    """Return the format that a site's scales are chosen for."""
    if config.scheme == "int4":
        return "w8" if eight_bit else "w4"
    return "w8" if config.activations == "never" else "w8a8"


def round_matrix(
    weight_RC: Tensor, weight_format: Format, config: QuantizeConfig, seen: SiteInput
) -> QuantizedMatrix:
    """Round a matrix as the settings ask, in view of what it reads."""
    if config.compensate and seen.statistics.gram is not None:
        return compensated_matrix(weight_RC, weight_format, config.group_size, seen.statistics.gram)
    return quantize_matrix(weight_RC, weight_format, config.group_size, importance_C=seen.mean_square)


def quantized_linear(linear: nn.Linear, quantized: QuantizedMatrix, group_size: int) -> QuantizedLinear:
    """Return the module that stands for a linear layer once its matrix is quantized."""
    rows, width = linear.weight.shape
    module = QuantizedLinear(width, rows, linear.bias is not None, quantized.format, group_size)
    tensors = quantized.buffers()
    if linear.bias is not None:
        tensors["bias"] = linear.bias.detach()
    module.load_state_dict(tensors)
    return module.to(linear.weight.device).eval()
