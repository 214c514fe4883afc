"""Granite 4: Granite 3 with fused feed-forward blocks, and in some models with layers of Mamba-2.

Some models have routed experts too; their feed-forward block is then the shared expert.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_tensors import GATE_UP, decoder_rules
from roots_compress.families.granite import granite_spec, write_granite
from roots_compress.families.granitemoe import (
    BESIDE_NAMES,
    CHANNELS,
    EXPERTS,
    beside_experts,
    write_beside,
)
from roots_compress.families.mamba2 import read_mamba2, write_mamba2
from roots_compress.families.rope import FULL
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.linear_attention import Mamba2
from roots_compress.models.spec import ModelSpec

NAMES = {
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


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("layers_block_type", "layer_types")
    for key in UNREAD:
        switches.take(key)
    positions = switches.take(POSITIONS)
    if positions not in (None, "rope", "nope"):
        switches.refuse(f"{POSITIONS} is {shown(positions)}; it must be rope, nope or null")
    channels = switches.number(CHANNELS, 1024)
    has_experts = switches.said(EXPERTS, 8) != 0
    if not has_experts:
        for key in (EXPERTS, "num_experts_per_tok"):
            switches.take(key)
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    attends = _attending(switches, shape.layers)
    mamba = None
    if all(attends):
        for key in OF_MAMBA:
            switches.take(key)
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


def _write(spec: ModelSpec) -> dict[str, Any]:
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
FAMILY = Family(
    "granitemoehybrid",
    "GraniteMoeHybridForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES),
    variants=(
        {"attention_multiplier": 0.3},
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.0625,
            "logits_scaling": 6.0,
            "tie_word_embeddings": True,
        },
        {"position_embedding_type": None, "attention_bias": True, "num_key_value_heads": 1},
        {**MIXED, "residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 6.0},
        {**MIXED, "mamba_n_groups": 2, "mamba_conv_bias": False, "position_embedding_type": "rope"},
        {**MIXED, "layer_types": [FULL, Mamba2.keeps], "mamba_expand": 1, "mamba_d_conv": 2},
        {**MIXED, "num_local_experts": 6, "num_experts_per_tok": 2, "residual_multiplier": 0.22},
        {"num_local_experts": 5, "num_experts_per_tok": 1, "shared_intermediate_size": 40},
    ),
)
