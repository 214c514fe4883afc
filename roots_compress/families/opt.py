"""OPT: layer norms, biases, learned positions, no gate."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import positioned_decoder, pre_norm_layer
from roots_compress.families.decoder_config import activation_name, first_blocks
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import last_rows
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

NORM = Norm(kind="layer_norm", eps=1e-5)
UNREAD_ROWS = 2
"""Positions before the first that a token has."""
NAMES = {
    "self_attn_pre_norm": "self_attn_layer_norm",
    "mlp_pre_norm": "final_layer_norm",
    "self_attn.o_proj": "self_attn.out_proj",
    "mlp.up_proj": "fc1",
    "mlp.down_proj": "fc2",
}
SAID = {
    "do_layer_norm_before": True,
    "_remove_final_layer_norm": False,
    "layer_norm_elementwise_affine": True,
}
"""Switches, and what they say of models that can be imported: of all published but facebook/opt-350m."""


def _read(switches: Switches) -> ModelSpec:
    switches.require_writer()
    for key, does in SAID.items():
        if switches.take(key, does) is not does:
            switches.refuse(f"{key} is not {str(does).lower()}, and no other OPT can be imported")
    switches.leave("activation_dropout", "dropout", "layerdrop", "init_std")
    width, heads = switches.width_and_heads()
    if switches.number("word_embed_proj_dim", width, null=width) != width:
        switches.refuse(f"word_embed_proj_dim is not hidden_size {width}; it must be")
    bias, positions = switches.flag("enable_bias", True), switches.number("max_position_embeddings", 2048)
    attention = Attention(heads=heads, kv_heads=heads, head_dim=width // heads, bias=bias, output_bias=bias)
    mlp = Mlp(
        channels=switches.number("ffn_dim", 3072),
        activation=switches.activation("activation_function", "relu"),
        gated=False,
        bias=bias,
    )
    layers = [pre_norm_layer(attention, mlp, NORM)] * switches.number("num_hidden_layers", most=MOST_LAYERS)
    return positioned_decoder(switches, layers, NORM, width=width, positions=positions)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = first_blocks(spec)
    return {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "word_embed_proj_dim": spec.width,
        "max_position_embeddings": spec.max_positions,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "ffn_dim": mlp.channels,
        "activation_function": activation_name(mlp.activation),
        "enable_bias": mlp.bias,
        "tie_word_embeddings": spec.tied,
    }


OPT = Family(
    "opt",
    "OPTForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES, outer={"norm": "final_layer_norm"}, positions=last_rows(UNREAD_ROWS)),
    prefix="model.decoder.",
    variants=(
        {},
        {"enable_bias": False, "tie_word_embeddings": False, "num_attention_heads": 2},
        {"activation_function": "gelu", "ffn_dim": 40, "num_hidden_layers": 3},
    ),
)
