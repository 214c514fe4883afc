"""What families share whose attention is latent: reading and writing its keys, the place of each tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import Any

from roots_compress.families.base import Rule
from roots_compress.families.decoder import Shape, pre_norm_layer, read_shape
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import Shared, with_shared
from roots_compress.families.rope import DEFAULT_THETA, ORIGINAL, longrope, read_rope, rope_of
from roots_compress.families.routed import NAMES as ROUTED_NAMES
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive
from roots_compress.models.ops.attention import Attention, Latent, Rope, YarnScaling
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import Layer, ModelSpec

KV_A, KV_B = "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"
NAMES = {
    **ROUTED_NAMES,
    "self_attn.q_a_norm": "self_attn.q_a_layernorm",
    "self_attn.kv_a_norm": "self_attn.kv_a_layernorm",
    "self_attn.kv_a_proj": KV_A,
    "self_attn.k_rope_proj": KV_A,
    "self_attn.k_proj": KV_B,
    "self_attn.v_proj": KV_B,
}
KEYS = ("rope_parameters", "rope_scaling")
PLAIN, TURNED = "qk_nope_head_dim", "qk_rope_head_dim"


def read_latent(
    switches: Switches,
    *,
    query_rank: int = 1536,
    rank: int = 512,
    plain: int = 128,
    turned: int = 64,
    values: int | None = 128,
    **defaults: Any,
) -> tuple[Shape, Attention]:
    """Take the numbers of a configuration, and return them with its attention.

    Args:
        plain: the default of the channels of a query or key that positions do not turn.
        turned: of those that they turn.
        values: of those of values; None, which a configuration may say too, for hidden size over heads.
        defaults: of the family, as `read_shape` takes them.
    """
    turned, own = switches.number(TURNED, turned), switches.number(PLAIN, plain)
    switches.same("head_dim", turned)
    switches.same("qk_head_dim", turned + own)
    switches.put("head_dim", turned)
    shape = read_shape(switches, **defaults)
    switches.no_windows(shape.layers)
    if shape.kv_heads != shape.heads:
        switches.refuse(
            f"num_key_value_heads is {shape.kv_heads}, and num_attention_heads {shape.heads}: each head has "
            "keys of its own"
        )
    each = shape.width // shape.heads
    latent = Latent(
        rank=switches.number("kv_lora_rank", rank),
        query_rank=switches.optional_number("q_lora_rank", query_rank),
        value_dim=switches.number("v_head_dim", values or each, null=None if values else each),
    )
    if latent.value_dim > turned + own:
        switches.refuse(
            f"v_head_dim is {latent.value_dim}: values that are wider than keys, of {turned + own} channels, "
            "are not supported"
        )
    bias = switches.flag("attention_bias", False)
    rope = _rope(switches, turned, shape.max_positions)
    return shape, Attention(
        heads=shape.heads,
        kv_heads=shape.heads,
        head_dim=turned + own,
        rope=Rope(theta=rope.theta, scaling=rope.scaling, rotary_dim=turned),
        scale=_scale(turned + own, rope),
        bias=bias,
        output_bias=bias,
        latent=latent,
    )


def _rope(switches: Switches, turned: int, max_positions: int) -> Rope:
    """Take the rotary positions, LongRoPE's among them."""
    for key, other in (KEYS, KEYS[::-1]):
        given = switches.said(key, None)
        if not isinstance(given, dict) or given.get("rope_type", given.get("type")) != "longrope":
            continue
        switches.same(other, given, {})
        switches.take(key)
        parameters = {name: each for name, each in given.items() if name not in ("rope_type", "type")}
        base = parameters.pop("rope_theta", switches.take("rope_theta", DEFAULT_THETA))
        original = parameters.pop(ORIGINAL, None)
        switches.same(ORIGINAL, original)
        if not is_positive(base) or type(original) is not int or original < 1:
            switches.refuse(f"{key} must hold {ORIGINAL}, and rope_theta a number above 0")
        scaling = longrope(
            switches, parameters, pairs=turned // 2, original=original, max_positions=max_positions
        )
        if parameters:
            switches.refuse(f"{key} has the key {min(parameters)!r}, which LongRoPE does not have")
        return Rope(theta=float(base), scaling=scaling)
    return rope_of(switches, read_rope(switches))


def _scale(width: int, rope: Rope) -> float | None:
    """Return the factor on scores: YaRN's `mscale_all_dim` makes it larger."""
    yarn = rope.scaling
    if not isinstance(yarn, YarnScaling) or yarn.mscale_all_dim is None:
        return None
    if yarn.factor is None:
        raise ValueError("the positions have mscale_all_dim, and their factor is null")
    larger = 1.0 if yarn.factor <= 1 else 0.1 * yarn.mscale_all_dim * log(yarn.factor) + 1.0
    return float(width**-0.5 * larger * larger)


def latent_layers(
    shape: Shape, attention: Attention, shared: Shared, sparse: Sequence[bool], *, mlp_bias: bool = False
) -> tuple[Layer, ...]:
    """Return layers of an attention, and of experts or a feed-forward block."""
    mlp = Mlp(channels=shape.channels, activation=shape.activation, bias=mlp_bias)
    layers = [pre_norm_layer(attention, mlp, shape.norm)] * shape.layers
    return with_shared(layers, shared, sparse)


def write_latent(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys that `read_latent` takes.

    Raises:
        ValueError: the model's attention is another.
    """
    written, attention = write_decoder(spec, attention_bias=True, own_heads=False), spec.attentions()[0]
    latent, rope = attention.latent, attention.rope
    if latent is None or rope is None:
        raise ValueError("its attention is not latent")
    said = rope.parameters()
    return {
        **written,
        "attention_bias": attention.output_bias,
        "rope_parameters": {key: [*each] if isinstance(each, tuple) else each for key, each in said.items()},
        TURNED: attention.turned,
        PLAIN: attention.head_dim - attention.turned,
        "v_head_dim": latent.value_dim,
        "kv_lora_rank": latent.rank,
        "q_lora_rank": latent.query_rank,
    }


def latent_rules(spec: ModelSpec, *, paired: bool = True) -> Iterator[Rule]:
    """Yield the place of each tensor; `paired` says whether positions turn adjacent channels."""
    latent = spec.attentions()[0].latent
    queries = (
        {} if latent is None or latent.query_rank is None else {"self_attn.q_proj": "self_attn.q_b_proj"}
    )
    return decoder_rules(spec, names={**NAMES, **queries}, paired=paired)
