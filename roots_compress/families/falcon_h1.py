"""Falcon-H1: in each layer attention and Mamba-2 read one stream, and factors on what most matrices give.

The factors go into the matrices, but those on embeddings and logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec, pre_norm_layer, read_shape
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.mamba2 import read_mamba2, write_mamba2
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.linear_attention import Mamba2
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import ModelSpec

NAMES = {
    "self_attn_pre_norm": "input_layernorm",
    "linear_attn": "mamba",
    **dict.fromkeys((f"linear_attn.{letter}_proj" for letter in "zvkqa"), "mamba.in_proj"),
    "linear_attn.out_proj": "mamba.out_proj",
    "mlp_pre_norm": "pre_ff_layernorm",
    **{f"mlp.{name}_proj": f"feed_forward.{name}_proj" for name in ("gate", "up", "down")},
}
OF_ATTENTION = ("attention_in_multiplier", "key_multiplier", "attention_out_multiplier")
OF_MAMBA = ("ssm_in_multiplier", "ssm_out_multiplier")
LISTS = {"ssm_multipliers": 5, "mlp_multipliers": 2}
"""Keys that hold a factor for each of several matrices, and how many."""
EMBEDDINGS, LOGITS = "embedding_multiplier", "lm_head_multiplier"
UNREAD = """
    attn_layer_indices mamba_chunk_size mamba_norm_before_gate mamba_use_mlp mlp_expansion_factor
    num_logits_to_keep time_step_floor time_step_max time_step_min time_step_rank
    """.split()  # noqa: SIM905
"""Keys of how the model is computed, of its training, and of what its class does not read."""


def _read(switches: Switches) -> ModelSpec:
    for key in (*OF_ATTENTION, *OF_MAMBA):
        switches.positive(key, 1.0)
    for key, count in LISTS.items():
        given = switches.take(key)
        if given is not None and (
            not isinstance(given, list) or len(given) != count or not all(map(is_positive, given))
        ):
            switches.refuse(f"{key} is {shown(given)}; it must hold {count} numbers above 0")
    if switches.flag("projectors_bias", False):
        switches.refuse("projectors_bias is true; projections of Mamba-2 with biases are not supported")
    shape = read_shape(
        switches,
        kv_heads=8,
        null_kv_heads=True,
        whole_heads=True,
        context=8192,
        eps=1e-5,
        activations={"silu": "silu", "swish": "silu"},  # Mamba-2's too.
    )
    bias = switches.flag("attention_bias", False)
    rope = rope_of(switches, read_rope(switches))
    attention = shape.attention(rope=rope, bias=bias, output_bias=bias)
    mlp = Mlp(channels=shape.channels, activation=shape.activation, bias=switches.flag("mlp_bias", False))
    mamba = _mamba(switches, shape.width, shape.norm.eps)
    mixer, last = pre_norm_layer(attention, mlp, shape.norm)
    layer = (
        changed(mixer, parallel=True),
        Sublayer(op=mamba, pre_norm=shape.norm, shares_norm=True),
        last,
    )
    head = LmHead(scale=switches.positive(LOGITS, 1.0))
    scale = switches.positive(EMBEDDINGS, 1.0)
    switches.leave(*UNREAD)
    return decoder_spec(shape, [layer] * shape.layers, scale=scale, head=head)


def _mamba(switches: Switches, width: int, eps: float) -> Mamba2:
    """Take the numbers of Mamba-2, whose norm may only come after the gate."""
    inner, expand = switches.optional_number("mamba_d_ssm", 1024), switches.number("mamba_expand", 2)
    normalised = switches.flag("mamba_rms_norm", False)
    if normalised and switches.said("mamba_norm_before_gate", True):
        switches.refuse("mamba_norm_before_gate is true; a norm before the gate is not supported")
    return read_mamba2(switches, inner or expand * width, "mamba_d_ssm", eps=eps, normalised=normalised)


def _factors(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the factors on matrices: those on what they read do not reach their biases."""

    def number(key: str) -> float:
        return float(config.get(key, 1.0))

    read, keys, given = map(number, OF_ATTENTION)
    ssm_read, ssm_given = map(number, OF_MAMBA)
    of_parts, (gate, down) = (config.get(key) or [1.0] * count for key, count in LISTS.items())
    return {
        "self_attn.q_proj": (read, 1.0),
        "self_attn.k_proj": (read * keys, keys),
        "self_attn.v_proj": (read, 1.0),
        "self_attn.o_proj": (given, given),
        **{
            f"linear_attn.{letter}_proj": (ssm_read * factor, factor)
            for letter, factor in zip("zvkqa", of_parts, strict=True)
        },
        "linear_attn.out_proj": (ssm_given, ssm_given),
        "mlp.gate_proj": (gate, gate),
        "mlp.down_proj": (down, down),
    }


def _write(spec: ModelSpec) -> dict[str, Any]:
    mamba = next((op for _, op in spec.blocks() if isinstance(op, Mamba2)), None)
    if mamba is None:
        raise ValueError("it has no Mamba-2")
    head_dim = spec.attentions()[0].head_dim
    return {
        **write_decoder(spec, attention_bias=True, mlp_bias="mlp_bias"),
        "head_dim": head_dim,
        "mamba_d_ssm": mamba.values,
        **write_mamba2(mamba),
        "mamba_rms_norm": mamba.normalised,
        "mamba_norm_before_gate": False,
        EMBEDDINGS: spec.embeddings.scale,
        LOGITS: spec.lm_head.scale,
    }


MULTIPLIED: dict[str, Any] = {
    "attention_in_multiplier": 0.9,
    "key_multiplier": 0.4,
    "attention_out_multiplier": 0.8,
    "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.3,
    "ssm_multipliers": [0.5, 0.7, 1.3, 0.9, 0.6],
    "mlp_multipliers": [0.7, 0.4],
    EMBEDDINGS: 5.0,
    LOGITS: 0.05,
}
FALCON_H1 = Family(
    "falcon_h1",
    "FalconH1ForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES, outer={"norm": "final_layernorm"}),
    factors=_factors,
    variants=(
        {},
        MULTIPLIED,
        {"mamba_rms_norm": True, "mamba_norm_before_gate": False, "mamba_n_groups": 2},
        {"mamba_conv_bias": False, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {**MULTIPLIED, "attention_bias": True, "mlp_bias": True},
        {"mamba_d_ssm": None, "mamba_expand": 1, "mamba_d_conv": 2, "num_key_value_heads": 4},
        {"mamba_n_heads": 8, "mamba_d_state": 16, "rms_norm_eps": 1e-3},
        {"num_hidden_layers": 3, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
    ),
)
