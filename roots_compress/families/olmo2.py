"""OLMo 2: norms after each block instead of before it, and of all queries and all keys of a token at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import Shape, decoder_spec, read_biases, read_shape
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention, QkNorm, Rope
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.sublayer import Sublayer
from roots_compress.models.spec import ModelSpec

NORM_NAMES = {
    "self_attn_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


def olmo_shape(switches: Switches) -> Shape:
    """Take the numbers of a configuration of OLMo 2 or 3, whose defaults are alike."""
    return read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048, eps=1e-5)


def olmo_spec(
    switches: Switches, shape: Shape, windows: Sequence[int | None], ropes: Sequence[Rope]
) -> ModelSpec:
    """Return a decoder whose layers have these windows and rotary positions."""
    bias, output_bias = read_biases(switches, None)
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    layers = [
        (
            Sublayer(
                op=Attention(
                    heads=shape.heads,
                    kv_heads=shape.kv_heads,
                    head_dim=shape.head_dim,
                    rope=rope,
                    window=window,
                    qk_norm=QkNorm(over="projection", eps=shape.norm.eps),
                    bias=bias,
                    output_bias=output_bias,
                ),
                post_norm=shape.norm,
            ),
            Sublayer(op=mlp, post_norm=shape.norm),
        )
        for window, rope in zip(windows, ropes, strict=True)
    ]
    return decoder_spec(shape, layers)


def olmo_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a model of OLMo 2 or 3."""
    return decoder_rules(spec, names=NORM_NAMES)


def _read(switches: Switches) -> ModelSpec:
    shape = olmo_shape(switches)
    switches.no_windows(shape.layers)
    rope = rope_of(switches, read_rope(switches))
    return olmo_spec(switches, shape, [None] * shape.layers, [rope] * shape.layers)


FAMILY = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    _read,
    partial(write_decoder, attention_bias=True),
    olmo_rules,
    variants=({}, {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True}),
)
