"""Granite 4 (dense): Granite 3 with fused feed-forward blocks, whose configuration can say more.

Its layers may also be of Mamba-2, or have experts beside the feed-forward block; such a model is refused.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_tensors import GATE_UP, NORM_NAMES, decoder_rules
from roots_compress.families.granite import granite_spec, write_granite
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.spec import ModelSpec

NAMES = {
    **NORM_NAMES,
    **dict.fromkeys(GATE_UP, "shared_mlp.input_linear"),
    "mlp.down_proj": "shared_mlp.output_linear",
}
CHANNELS, POSITIONS = "shared_intermediate_size", "position_embedding_type"
UNREAD = """
    init_method mamba_chunk_size mamba_conv_bias mamba_d_conv mamba_d_head mamba_d_state mamba_expand
    mamba_n_groups mamba_n_heads mamba_proj_bias normalization_function num_experts_per_tok
    output_router_logits router_aux_loss_coef time_step_limit time_step_max time_step_min
    """.split()  # noqa: SIM905
"""Keys of layers and experts that the model does not have, and of training."""


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("layers_block_type", "layer_types")
    types = switches.said("layer_types", None) or ["mamba"]
    named = types if isinstance(types, list) else [types]
    others = sorted({*map(str, named)} - {"attention", "full_attention"})
    if others:
        switches.refuse(
            f"layer_types has layers of {others[0]!r}, and only models whose layers are all "
            "of attention can be imported, such as granite-4.0-350m and granite-4.0-1b"
        )
    if experts := switches.take("num_local_experts", 8):
        switches.refuse(
            f"num_local_experts is {shown(experts)}: a feed-forward block with experts is not supported"
        )
    for key in UNREAD:
        switches.take(key)
    positions = switches.take(POSITIONS)
    if positions not in (None, "rope"):
        switches.refuse(f"{POSITIONS} is {shown(positions)}; it must be rope or null")
    channels = switches.number(CHANNELS, 1024)
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    return granite_spec(switches, replace(shape, channels=channels), positions=positions is not None)


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_granite(spec)
    return {
        **written,
        CHANNELS: written["intermediate_size"],
        "layer_types": ["full_attention"] * len(spec.layers),
        POSITIONS: None if spec.attentions()[0].rope is None else "rope",
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        # transformers checks them against the hidden size.
        "mamba_expand": 1,
        "mamba_n_heads": 1,
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
    ),
)
