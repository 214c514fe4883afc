"""Phi-1 to Phi-2, and Phi-3 to Phi-4-mini."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import decoder_spec, pre_norm_layer, read_decoder, read_shape
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import GATE_UP, NORM_NAMES, QKV, decoder_rules
from roots_compress.families.rope import longrope
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import LongRopeScaling, Rope
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY = "layer_norm_eps"
PHI_NAMES = {
    "self_attn_pre_norm": "input_layernorm",
    "self_attn.o_proj": "self_attn.dense",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from decoder_rules(spec, names=PHI_NAMES, outer={"norm": "final_layernorm"})
    yield Rule("lm_head.bias", ("logits_bias",))


PHI = Family(
    "phi",
    "PhiForCausalLM",
    partial(
        read_decoder,
        biases=(True, True),
        mlp_bias=True,
        gated=False,
        partial=0.5,
        parallel=True,
        head=LmHead(bias=True),
        activation="gelu_new",
        null_kv_heads=True,
        context=2048,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    ),
    partial(write_decoder, partial=True, eps_key=EPS_KEY),
    _rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True, "head_dim": 16},
        {
            "hidden_act": "relu",
            "rope_theta": 100.0,
            "partial_rotary_factor": 1.0,
        },
    ),
)
"""Phi-1 to Phi-2: layer norms, both blocks of a layer reading one norm of one stream, biases everywhere."""


LONGROPE = ("longrope", "su", "yarn")
"""What configurations have called it."""
PHI3_NAMES = {
    **NORM_NAMES,
    **dict.fromkeys(QKV, "self_attn.qkv_proj"),
    **dict.fromkeys(GATE_UP, "mlp.gate_up_proj"),
}
ORIGINAL, PARTIAL = "original_max_position_embeddings", "partial_rotary_factor"


def _rope(switches: Switches, head_dim: int, max_positions: int) -> Rope:
    """Take the rotary positions."""
    scaling, given = switches.take("rope_scaling"), switches.take("rope_parameters")
    for key, value in (("rope_scaling", scaling), ("rope_parameters", given)):
        if value is not None and not isinstance(value, dict):
            switches.refuse(f"{key} is {shown(value)}; it must be an object or null")
    if scaling and given and scaling != given:
        switches.refuse("rope_scaling and rope_parameters are both given, and say different things")
    parameters = dict(scaling or given or {})
    top = switches.positive("rope_theta", 10000.0)
    theta = parameters.pop("rope_theta", top)
    share = switches.take(PARTIAL, 1.0)
    share = parameters.pop(PARTIAL, 1.0 if share is None else share)
    original = switches.number(ORIGINAL, 4096)
    named = parameters.pop("type", "default")
    rope_type = parameters.pop("rope_type", named)
    if not is_positive(theta):
        switches.refuse(f"rope_theta is {shown(theta)}; it must be a number above 0")
    if not is_positive(share) or share > 1:
        switches.refuse(f"{PARTIAL} is {shown(share)}; it must be above 0 and at most 1")
    rotary_dim = None if share == 1 else int(head_dim * share)
    if rope_type == "default":
        parameters.pop(ORIGINAL, None)
        _refuse_others(switches, parameters)
        return Rope(theta=theta, rotary_dim=rotary_dim)
    if rope_type not in LONGROPE:
        switches.refuse(f"rope_type is {shown(rope_type)}; a Phi-3 has default or {', '.join(LONGROPE)}")
    parameters.pop(ORIGINAL, None)  # The configuration's own key goes before it.
    pairs = (rotary_dim or head_dim) // 2
    scaling = longrope(switches, parameters, pairs=pairs, original=original, max_positions=max_positions)
    _refuse_others(switches, parameters)
    return Rope(theta=theta, rotary_dim=rotary_dim, scaling=scaling)


def _refuse_others(switches: Switches, parameters: dict[str, Any]) -> None:
    if parameters:
        switches.refuse(f"rope_parameters has the key {min(parameters)!r}, which a Phi-3 does not read")


def _read_phi3(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=4096, eps=1e-5)
    window = switches.optional_number("sliding_window")
    attention = shape.attention(rope=_rope(switches, shape.head_dim, shape.max_positions), window=window)
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    return decoder_spec(shape, [pre_norm_layer(attention, mlp, shape.norm)] * shape.layers)


def _write_phi3(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    rope = attention.rope or Rope()
    written = write_decoder(spec, windows="all", partial=True)
    parameters = written["rope_parameters"]
    written[PARTIAL] = parameters[PARTIAL]
    if isinstance(rope.scaling, LongRopeScaling):
        written[ORIGINAL] = rope.scaling.original_max_position_embeddings
        parameters |= {key: list(parameters[key]) for key in ("short_factor", "long_factor")}
    return written


def _longrope(pairs: int, **others: Any) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 1000.0,
        "short_factor": [1.0 + 0.1 * pair for pair in range(pairs)],
        "long_factor": [2.0 + 0.5 * pair for pair in range(pairs)],
        **others,
    }


PHI3 = Family(
    "phi3",
    "Phi3ForCausalLM",
    _read_phi3,
    _write_phi3,
    partial(decoder_rules, names=PHI3_NAMES),
    variants=(
        {},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4, "tie_word_embeddings": True},
        {"sliding_window": 5},
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": _longrope(4), "original_max_position_embeddings": 64},
        {"rope_parameters": _longrope(4), "original_max_position_embeddings": 16},
        {
            "rope_parameters": _longrope(3, partial_rotary_factor=0.75),
            "original_max_position_embeddings": 16,
            "hidden_act": "gelu",
        },
    ),
)
"""Phi-3, Phi-3.5 and Phi-4-mini: fused projections, heads turned in part, LongRoPE."""
