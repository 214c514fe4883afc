"""Initialising a student from its teacher's own weights.

Student layers take the weights of teacher layers at even depths, the first and the last among them (as
DistilBERT does, Sanh et al. 2019). Where the student is narrower, the same channels are taken everywhere:
residual channels once for the whole model, MLP channels and heads layer by layer, the most important ones
by weight norms, in their old order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roots_compress.models.config import RootsConfig
from roots_compress.models.layers import RootsAttention, RootsLayer, RootsMLP
from roots_compress.models.modeling import RootsForCausalLM

# Which channels the rows and columns of each parameter are, by its module's and its own name; None: all.
AXES: Mapping[str, tuple[str | None, ...]] = {
    "embed_tokens.weight": (None, "residual"),
    "embed_positions.weight": ("position", "residual"),
    "lm_head.weight": (None, "residual"),
    "norm.weight": ("residual",),
    "norm.bias": ("residual",),
    "input_layernorm.weight": ("residual",),
    "input_layernorm.bias": ("residual",),
    "post_attention_layernorm.weight": ("residual",),
    "post_attention_layernorm.bias": ("residual",),
    "q_proj.weight": ("query", "residual"),
    "q_proj.bias": ("query",),
    "k_proj.weight": ("key_value", "residual"),
    "k_proj.bias": ("key_value",),
    "v_proj.weight": ("key_value", "residual"),
    "v_proj.bias": ("key_value",),
    "o_proj.weight": ("residual", "query"),
    "o_proj.bias": ("residual",),
    "q_norm.weight": (None,),
    "k_norm.weight": (None,),
    "gate_proj.weight": ("mlp", "residual"),
    "gate_proj.bias": ("mlp",),
    "up_proj.weight": ("mlp", "residual"),
    "up_proj.bias": ("mlp",),
    "down_proj.weight": ("residual", "mlp"),
    "down_proj.bias": ("residual",),
}

RESIDUAL_GAINS = ("norm.weight", "input_layernorm.weight", "post_attention_layernorm.weight")

Channels = dict[str, Tensor]


@dataclass(frozen=True)
class Inheritance:
    """What a student took over from its teacher."""

    layers: tuple[int, ...]
    """For each student layer, the teacher layer (from 0) its weights come from."""
    inherited: int
    """Parameters copied."""
    fresh: int
    """Parameters left as they were initialised."""


def spread(count: int, among: int) -> tuple[int, ...]:
    """Return `count` indices spread evenly over `range(among)`, the first and the last included."""
    if count == 1:
        return (0,)
    return tuple(round(index * (among - 1) / (count - 1)) for index in range(count))


@torch.no_grad()
def inherit(student: RootsForCausalLM, teacher: RootsForCausalLM) -> Inheritance:
    """Copy into the student, in place, every teacher weight that has a place there.

    What does not fit is left as it is: all of a student with a wider residual stream than its teacher's; an
    attention or MLP block that is wider, or built otherwise (its activation, gate, head size or positions).
    """
    layers = spread(len(student.config.layers), len(teacher.config.layers))
    source = dict(teacher.named_parameters(remove_duplicate=False))
    shared = _shared_channels(student.config, teacher)
    gain = _norm_gain(teacher, shared["residual"]) if "residual" in shared else 1.0
    channels = [
        {**shared, **_layer_channels(student.config, index, teacher, layer)}
        for index, layer in enumerate(layers)
    ]
    inherited = fresh = 0
    for name, parameter in student.named_parameters():
        layer = _layer_index(name)
        origin = name if layer is None else name.replace(f".{layer}.", f".{layers[layer]}.", 1)
        value = _take(source.get(origin), name, shared if layer is None else channels[layer])
        if value is None or value.shape != parameter.shape:
            fresh += parameter.numel()
            continue
        parameter.copy_(value * gain if _kind(name) in RESIDUAL_GAINS else value)
        inherited += parameter.numel()
    return Inheritance(layers, inherited, fresh)


def _kind(name: str) -> str:
    """Return the module's and the parameter's own name, as in `q_proj.weight`."""
    return ".".join(name.split(".")[-2:])


def _layer_index(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else None


def _take(origin: Tensor | None, name: str, channels: Channels) -> Tensor | None:
    """Return the chosen rows and columns of a teacher's parameter, or None where they have no counterpart."""
    if origin is None:
        return None
    for dimension, axis in enumerate(AXES[_kind(name)]):
        if axis is None:
            continue
        if axis not in channels:
            return None
        origin = origin.index_select(dimension, channels[axis])
    return origin


def _shared_channels(config: RootsConfig, teacher: RootsForCausalLM) -> Channels:
    """Choose what the whole model has in common: residual channels and learned positions."""
    channels: Channels = {}
    if config.hidden_size <= teacher.config.hidden_size and config.norm == teacher.config.norm:
        channels["residual"] = _largest(_residual_energy(teacher), config.hidden_size)
    if config.max_position_embeddings <= teacher.config.max_position_embeddings:
        channels["position"] = torch.arange(config.max_position_embeddings)
    return channels


def _layer_channels(config: RootsConfig, index: int, teacher: RootsForCausalLM, layer: int) -> Channels:
    """Choose the channels of a student layer among those of a teacher layer; none where they do not fit."""
    channels: Channels = {}
    block = teacher.model.layers[layer]
    assert isinstance(block, RootsLayer)
    old, wanted = teacher.config, config.layers[index]
    old_head_dim = old.layers[layer]["head_dim"]
    same_attention = (config.position, config.qk_norm, wanted["head_dim"]) == (
        old.position,
        old.qk_norm,
        old_head_dim,
    )
    if same_attention:
        heads = _chosen_heads(block.self_attn, wanted["num_attention_heads"], wanted["num_key_value_heads"])
        if heads is not None:
            channels["query"], channels["key_value"] = (_columns(h, wanted["head_dim"]) for h in heads)
    same_mlp = (config.activation, config.gated_mlp) == (old.activation, old.gated_mlp)
    if same_mlp and wanted["intermediate_size"] <= old.layers[layer]["intermediate_size"]:
        channels["mlp"] = _largest(_mlp_importance(block.mlp), wanted["intermediate_size"])
    return channels


def _residual_energy(teacher: RootsForCausalLM) -> Tensor:
    """Return, for each residual channel, the sum of squares of all weights that write to it."""
    energy = _weight(teacher.model.embed_tokens).square().sum(dim=0)
    for block in teacher.model.layers:
        assert isinstance(block, RootsLayer)
        for writer in (block.self_attn.o_proj, block.mlp.down_proj):
            energy = energy + _weight(writer).square().sum(dim=1)
    return energy


def _norm_gain(teacher: RootsForCausalLM, kept: Tensor) -> float:
    """Return the factor on norms that keeps the size of what they give out when only some channels are kept.

    A norm divides by the mean square over its width, and the kept channels have more of it than the rest.
    """
    energy = _residual_energy(teacher)
    return float((energy[kept].mean() / energy.mean()).sqrt())


def _mlp_importance(mlp: RootsMLP) -> Tensor:
    """Return, for each MLP channel, the product of the norms of the weights that enter and leave it."""
    importance: Tensor = _weight(mlp.down_proj).norm(dim=0) * _weight(mlp.up_proj).norm(dim=1)
    if mlp.gated:
        importance = importance * _weight(mlp.gate_proj).norm(dim=1)
    return importance


def _chosen_heads(attention: RootsAttention, heads: int, groups: int) -> tuple[Tensor, Tensor] | None:
    """Return which query heads and which key/value heads to keep, or None where the teacher has too few.

    Whole groups are chosen by the energy of their output weights, then the same number of heads in each.
    """
    old_each, each = attention.num_heads // attention.num_kv_heads, heads // groups
    if groups > attention.num_kv_heads or each > old_each:
        return None
    columns_WGHD = _weight(attention.o_proj).unflatten(1, (attention.num_kv_heads, old_each, -1))
    energy_GH = columns_WGHD.square().sum(dim=(0, 3))
    kept_groups = _largest(energy_GH.sum(dim=1), groups)
    query = [int(group) * old_each + _largest(energy_GH[group], each) for group in kept_groups]
    return torch.cat(query), kept_groups


def _columns(heads: Tensor, head_dim: int) -> Tensor:
    return (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()


def _largest(importance: Tensor, count: int) -> Tensor:
    """Return the indices of the largest entries, ascending."""
    return importance.topk(count).indices.sort().values


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight
