"""GPT-Neo and TinyStories: layer norms, learned positions, scores that are not scaled, windows by layer."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import positioned_decoder, pre_norm_layer
from roots_compress.families.decoder_config import activation_name, first_blocks
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.gpt2 import OUTER
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

NAMES = {
    "self_attn_pre_norm": "ln_1",
    "mlp_pre_norm": "ln_2",
    **{f"self_attn.{name}_proj": f"attn.attention.{name}_proj" for name in "qkv"},
    "self_attn.o_proj": "attn.attention.out_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
WINDOW, TYPES = 256, "attention_types"
SPELLINGS = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}
SLIDES = {"global": False, "local": True}


def _windows(switches: Switches, layers: int) -> list[int | None]:
    """Take each layer's window: those of `attention_types`, patterns of types and how often each comes."""
    given, window = switches.take(TYPES), switches.number("window_size", WINDOW)
    given = [[["global", "local"], 12]] if given is None else given
    try:
        types = [kind for kinds, count in given for kind in [*kinds] * min(count, MOST_LAYERS)]
        slides = [SLIDES[kind] for kind in types]
    except (KeyError, TypeError, ValueError):
        switches.refuse(f"{TYPES} is {shown(given)}; it must hold lists of global and local and counts")
    if len(slides) != layers:
        switches.refuse(f"{TYPES} tells of {len(slides)} layers, and num_layers of {layers}")
    switches.same("attention_layers", types)
    return [window if each else None for each in slides]


def _read(switches: Switches) -> ModelSpec:
    switches.require_writer()
    switches.all_renamed(SPELLINGS)
    switches.leave("embed_dropout", "resid_dropout")
    width, heads = switches.width_and_heads(heads_key="num_heads")
    positions = switches.number("max_position_embeddings", 2048)
    norm = Norm(kind="layer_norm", eps=switches.positive("layer_norm_epsilon", 1e-5))
    attention = Attention(heads=heads, kv_heads=heads, head_dim=width // heads, scale=1.0, output_bias=True)
    mlp = Mlp(
        channels=switches.number("intermediate_size", 4 * width, null=4 * width),
        activation=switches.activation("activation_function", "gelu_new"),
        gated=False,
        bias=True,
    )
    windows = _windows(switches, switches.number("num_layers", most=MOST_LAYERS))
    layers = [pre_norm_layer(changed(attention, window=window), mlp, norm) for window in windows]
    return positioned_decoder(switches, layers, norm, width=width, positions=positions)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = first_blocks(spec)
    windows = [each.window for each in spec.attentions()]
    return {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "max_position_embeddings": spec.max_positions,
        "num_layers": len(spec.layers),
        "num_heads": attention.heads,
        "intermediate_size": mlp.channels,
        "layer_norm_epsilon": (spec.stack.final_norm or Norm()).eps,
        "activation_function": activation_name(mlp.activation),
        "window_size": next((window for window in windows if window is not None), WINDOW),
        TYPES: [[["global" if window is None else "local" for window in windows], 1]],
        "tie_word_embeddings": spec.tied,
    }


GPT_NEO = Family(
    "gpt_neo",
    "GPTNeoForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES, outer=OUTER),
    prefix="transformer.",
    ignored=("h.{}.attn.attention.bias", "h.{}.attn.attention.masked_bias"),
    variants=(
        {"window_size": 5},
        {"attention_types": [[["local"], 2]], "window_size": 7, "intermediate_size": 40},
        {"num_heads": 2, "tie_word_embeddings": False, "activation_function": "relu"},
    ),
)
