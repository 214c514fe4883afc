"""Granite 3 and 4 with experts, with layers of Mamba-2, or with fused feed-forward blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.decoder_tensors import GATE_UP, NORM_NAMES, decoder_rules
from roots_compress.families.experts import TRAINING, Shared, with_experts, with_shared, without_experts
from roots_compress.families.granite import FACTORS, granite_spec, write_granite
from roots_compress.families.mamba2 import read_mamba2, write_mamba2
from roots_compress.families.rope import FULL
from roots_compress.families.routed import routed_blocks
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.linear_attention import Mamba2
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

EXPERTS = "num_local_experts"
JOINED, DOWN = "block_sparse_moe.input_linear", "block_sparse_moe.output_linear"
GRANITEMOE_NAMES = {
    **NORM_NAMES,
    "mlp.router": "block_sparse_moe.router.layer",
    "mlp.experts.{}.gate_proj": JOINED,
    "mlp.experts.{}.up_proj": JOINED,
    "mlp.experts.{}.down_proj": DOWN,
}
CHANNELS = "shared_intermediate_size"
BESIDE_NAMES = {
    **GRANITEMOE_NAMES,
    "shared_mlp_pre_norm": "post_attention_layernorm",
    **{f"shared_mlp.{name}_proj": "shared_mlp.input_linear" for name in ("gate", "up")},
    "shared_mlp.down_proj": "shared_mlp.output_linear",
}
"""Names of experts in layers that have a shared expert too."""


def _read_granitemoe(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    spec = granite_spec(switches, shape)
    return with_experts(switches, spec, key=EXPERTS, experts=8, chosen=2, renormalise=True)


def beside_experts(switches: Switches, spec: ModelSpec, width: int) -> ModelSpec:
    """Take experts of a width, and return a model with them beside its feed-forward blocks."""
    _, mlp = spec.layers[0]
    assert isinstance(mlp.op, Mlp)
    moe = Moe(
        experts=switches.number(EXPERTS, 8),
        chosen=switches.number("num_experts_per_tok", 2),
        channels=width,
        activation=mlp.op.activation,
    )
    shared = Shared(moe, changed(mlp.op, shared=True))
    return spec.with_layers(with_shared(spec.layers, shared, [True] * len(spec.layers)))


def write_beside(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys of experts and of the blocks beside them, which a model may have alone."""
    mlp = first_blocks(spec)[1]
    if not mlp.shared:
        return {CHANNELS: mlp.channels, EXPERTS: 0, "num_experts_per_tok": 0}
    moe, _ = routed_blocks(spec)
    return {
        CHANNELS: mlp.channels,
        "intermediate_size": moe.channels,
        EXPERTS: moe.experts,
        "num_experts_per_tok": moe.chosen,
    }


def _write_granitemoe(spec: ModelSpec) -> dict[str, Any]:
    plain, _, experts = without_experts(spec, EXPERTS)
    return {**write_granite(plain), **experts}


VARIANTS: tuple[dict[str, Any], ...] = (
    {"attention_multiplier": 0.3},
    {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "num_key_value_heads": 1},
    {"logits_scaling": 6.0, "tie_word_embeddings": True, "num_experts_per_tok": 1},
)
GRANITEMOE = Family(
    "granitemoe",
    "GraniteMoeForCausalLM",
    _read_granitemoe,
    _write_granitemoe,
    partial(decoder_rules, names=GRANITEMOE_NAMES),
    variants=VARIANTS,
)
"""Granite 3 MoE: Granite 3 with experts in all layers, and what it shares with Granite 4."""


def _read_granitemoeshared(switches: Switches) -> ModelSpec:
    switches.leave(*TRAINING)
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    spec = granite_spec(switches, replace(shape, channels=switches.number(CHANNELS)))
    return beside_experts(switches, spec, shape.channels)


def _write_granitemoeshared(spec: ModelSpec) -> dict[str, Any]:
    return {**write_granite(spec), **write_beside(spec)}


GRANITEMOESHARED = Family(
    "granitemoeshared",
    "GraniteMoeSharedForCausalLM",
    _read_granitemoeshared,
    _write_granitemoeshared,
    partial(decoder_rules, names=BESIDE_NAMES),
    variants=VARIANTS,
)
"""Granite 3 with routed experts and a shared expert in every layer."""


GRANITEMOEHYBRID_NAMES = {
    **BESIDE_NAMES,
    **dict.fromkeys(GATE_UP, "shared_mlp.input_linear"),
    "mlp.down_proj": "shared_mlp.output_linear",
    "linear_attn": "mamba",
    "linear_attn_pre_norm": "input_layernorm",
    **dict.fromkeys((f"linear_attn.{letter}_proj" for letter in "zvkqa"), "mamba.in_proj"),
    "linear_attn.out_proj": "mamba.out_proj",
}
POSITIONS = "position_embedding_type"
UNREAD = """
    init_method mamba_chunk_size normalization_function output_router_logits router_aux_loss_coef
    time_step_max time_step_min
    """.split()  # noqa: SIM905
"""Keys of how it is computed, and of training."""
OF_MAMBA = """
    mamba_conv_bias mamba_d_conv mamba_d_head mamba_d_state mamba_expand mamba_n_groups mamba_n_heads
    mamba_proj_bias time_step_limit
    """.split()  # noqa: SIM905
TYPES = {"attention": True, FULL: True, "mamba": False, Mamba2.keeps: False}
"""Whether a layer attends, by transformers' names of it, old ones included."""


def _read_granitemoehybrid(switches: Switches) -> ModelSpec:
    switches.renamed("layers_block_type", "layer_types")
    switches.leave(*UNREAD)
    positions = switches.take(POSITIONS)
    if positions not in (None, "rope", "nope"):
        switches.refuse(f"{POSITIONS} is {shown(positions)}; it must be rope, nope or null")
    channels = switches.number(CHANNELS, 1024)
    has_experts = switches.said(EXPERTS, 8) != 0
    if not has_experts:
        switches.leave(EXPERTS, "num_experts_per_tok")
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    attends = _attending(switches, shape.layers)
    mamba = None
    if all(attends):
        switches.leave(*OF_MAMBA)
    else:
        if shape.activation != "silu":
            switches.refuse("hidden_act is not silu, which Mamba-2 has")
        inner = shape.width * switches.number("mamba_expand", 2)
        mamba = read_mamba2(switches, inner, "mamba_expand times hidden_size,", eps=shape.norm.eps)
    spec = granite_spec(
        switches,
        replace(shape, channels=channels),
        positions=positions == "rope",
        instead=[None if each else mamba for each in attends],
    )
    return beside_experts(switches, spec, shape.channels) if has_experts else spec


def _attending(switches: Switches, layers: int) -> list[bool]:
    """Take the layers' types, and return which attend."""
    types = switches.take("layer_types") or [Mamba2.keeps] * layers
    if not isinstance(types, list) or len(types) != layers or not {*map(str, types)} <= TYPES.keys():
        switches.refuse(f"layer_types must name attention or mamba for each of {layers} layers")
    if not any(TYPES[each] for each in types):
        switches.refuse("layer_types names no attention: transformers counts the tokens of a cache by it")
    return [TYPES[each] for each in types]


def _write_granitemoehybrid(spec: ModelSpec) -> dict[str, Any]:
    written, added = write_granite(spec), 1.0
    firsts = [layer[0].op for layer in spec.layers]
    mamba = next((op for op in firsts if isinstance(op, Mamba2)), None)
    # transformers checks them against the hidden size.
    numbers: dict[str, Any] = {"mamba_expand": 1, "mamba_n_heads": 1}
    if mamba is not None:
        numbers = {"mamba_expand": mamba.values // spec.width, **write_mamba2(mamba)}
        # The norm within Mamba-2 tells by what the stream was divided; see `granite_spec`.
        added = float(f"{(mamba.eps / written['rms_norm_eps']) ** 0.5:.12g}")
        written["rms_norm_eps"] = mamba.eps
        written["residual_multiplier"] = added
        written["embedding_multiplier"] = float(f"{written['embedding_multiplier'] * added:.12g}")
    return {
        **written,
        **numbers,
        **write_beside(spec),
        "layer_types": [op.keeps for op in firsts],
        POSITIONS: None if spec.attentions()[0].rope is None else "rope",
    }


MIXED = {
    "layer_types": [Mamba2.keeps, FULL],
    "position_embedding_type": None,
    "mamba_n_heads": 8,
    "mamba_d_state": 6,
}
GRANITEMOEHYBRID = Family(
    "granitemoehybrid",
    "GraniteMoeHybridForCausalLM",
    _read_granitemoehybrid,
    _write_granitemoehybrid,
    partial(decoder_rules, names=GRANITEMOEHYBRID_NAMES),
    variants=(
        {"attention_multiplier": 0.3},
        {**FACTORS, "tie_word_embeddings": True},
        {"position_embedding_type": None, "attention_bias": True, "num_key_value_heads": 1},
        {**MIXED, "residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 6.0},
        {**MIXED, "mamba_n_groups": 2, "mamba_conv_bias": False, "position_embedding_type": "rope"},
        {**MIXED, "layer_types": [FULL, Mamba2.keeps], "mamba_expand": 1, "mamba_d_conv": 2},
        {**MIXED, "num_local_experts": 6, "num_experts_per_tok": 2, "residual_multiplier": 0.22},
        {"num_local_experts": 5, "num_experts_per_tok": 1, "shared_intermediate_size": 40},
    ),
)
"""Granite 4: Granite 3 with fused feed-forward blocks, and in some models with layers of Mamba-2."""
