"""Tiny quantized models, rounded to nearest by the quantize stage's own grids."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch

from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.quantized import Format, QuantizedEmbedding, QuantizedWeight
from roots_compress.stages.quantize.cache import observed_cache
from roots_compress.stages.quantize.rounding import quantize_matrix
from tests.tiny import tiny_model, tiny_tokens

Model = TypeVar("Model", bound=RootsWithHead)


def quantized(
    model: Model,
    formats: dict[str, Format],
    group_size: int = 16,
    group_sizes: dict[str, int] | None = None,
    input_scales: dict[str, float] | None = None,
) -> Model:
    """Return the model with the named modules in the given formats."""
    others: dict[str, Any] = {"group_sizes": group_sizes} if group_sizes else {}
    others |= {"fixed_inputs": sorted(input_scales)} if input_scales else {}
    settings = {"group_size": group_size, "formats": formats, **others}
    fields = {**model.config.to_dict(), "quantization": settings}
    result = type(model)(RootsConfig.from_dict(fields)).eval()
    plain, state = model.state_dict(), result.state_dict()
    for name in state:
        if name in plain and state[name].shape == plain[name].shape:
            state[name] = plain[name]
    for name, module in result.named_modules():
        if isinstance(module, QuantizedWeight):
            size = (group_sizes or {}).get(name, group_size)
            matrix = quantize_matrix(plain[f"{name}.weight"], formats[name], size)
            state.update({f"{name}.{part}": tensor for part, tensor in matrix.buffers().items()})
        if isinstance(module, QuantizedEmbedding) and module.lookup_scale is not None:
            # Not what suits the table, but what shows if left out; powers of two, which round nothing.
            state[f"{name}.lookup_scale"] = 2.0 ** (torch.arange(module.width) % 3 - 1)
    state |= {f"{name}.input_scale": torch.tensor(scale) for name, scale in (input_scales or {}).items()}
    result.load_state_dict(state)
    return cast(Model, result)


def with_int8_cache(model: RootsForCausalLM) -> RootsForCausalLM:
    """Return the model with keys and values cached in int8, in steps that fit some random text."""
    settings = model.config.quantization or {"group_size": 16, "formats": {}}
    fields = {**model.config.to_dict(), "quantization": {**settings, "cache": "int8"}}
    result: RootsForCausalLM = RootsForCausalLM(RootsConfig.from_dict(fields)).eval()
    state = model.state_dict()
    for index, layer in enumerate(model.model.layers):
        with torch.no_grad(), observed_cache(layer.self_attn, model.config.spec.max_positions) as seen:
            model(input_ids=tiny_tokens(4, 32, seed=1))
        state.update(seen.state(f"model.layers.{index}.self_attn.cache_rounding"))
    result.load_state_dict(state)
    return result


def tiny_quantized(weight_format: Format, group_size: int = 16, **overrides: Any) -> RootsForCausalLM:
    """Return a tiny model whose every matrix, embedding and head included, is in one format."""
    model = tiny_model(**overrides)
    formats = dict.fromkeys(model.config.spec.matrices(), weight_format)
    return quantized(model, formats, group_size)
