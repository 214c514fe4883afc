"""GPT-Neo (TinyStories) and GPT-NeoX (Pythia): decoders with layer norms, of EleutherAI."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import positioned_decoder, pre_norm_layer, read_decoder
from roots_compress.families.decoder_config import activation_name, first_blocks, write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, QKV, decoder_rules
from roots_compress.families.gpt2 import OUTER
from roots_compress.families.rope import DEFAULT_THETA, PARTIAL
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

GPT_NEO_NAMES = {
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


def _read_gpt_neo(switches: Switches) -> ModelSpec:
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


def _write_gpt_neo(spec: ModelSpec) -> dict[str, Any]:
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
    _read_gpt_neo,
    _write_gpt_neo,
    partial(decoder_rules, names=GPT_NEO_NAMES, outer=OUTER),
    prefix="transformer.",
    ignored=("h.{}.attn.attention.bias", "h.{}.attn.attention.masked_bias"),
    variants=(
        {"window_size": 5},
        {"attention_types": [[["local"], 2]], "window_size": 7, "intermediate_size": 40},
        {"num_heads": 2, "tie_word_embeddings": False, "activation_function": "relu"},
    ),
)
"""GPT-Neo and TinyStories: layer norms, learned positions, scores that are not scaled, windows by layer."""


EPS_KEY, PARALLEL = "layer_norm_eps", "use_parallel_residual"
GPT_NEOX_NAMES = {
    **NORM_NAMES,
    **dict.fromkeys(QKV, "attention.query_key_value"),
    "self_attn.o_proj": "attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
GPT_NEOX_OUTER = {"embed_tokens": "embed_in", "norm": "final_layer_norm", "lm_head": "embed_out"}
SHARE, BASE = 0.25, ("rotary_emb_base", "rope_theta", DEFAULT_THETA)


def _read_gpt_neox(switches: Switches) -> ModelSpec:
    for spelling, key, default in (BASE, ("rotary_pct", PARTIAL, SHARE)):
        # transformers reads these under their own names only.
        switches.same(key, switches.said(spelling, default))
        switches.renamed(spelling, key)
    bias = switches.flag("attention_bias", True)
    switches.same("num_key_value_heads", switches.said("num_attention_heads", None))
    return read_decoder(
        switches,
        biases=(bias, bias),
        mlp_bias=True,
        gated=False,
        partial=SHARE,
        parallel=switches.flag(PARALLEL, True),
        one_norm=False,
        activation="gelu",
        own_heads=False,
        whole_heads=True,
        context=2048,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


def _write_gpt_neox(spec: ModelSpec) -> dict[str, Any]:
    written = write_decoder(spec, attention_bias=True, partial=True, own_heads=False, eps_key=EPS_KEY)
    if written.pop("num_key_value_heads") != written["num_attention_heads"]:
        raise ValueError("its query heads share keys and values")
    return {**written, PARALLEL: spec.layers[0][0].parallel}


GPT_NEOX = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    _read_gpt_neox,
    _write_gpt_neox,
    partial(decoder_rules, names=GPT_NEOX_NAMES, outer=GPT_NEOX_OUTER, by_head=True),
    prefix="gpt_neox.",
    headed=("embed_out.",),
    ignored=tuple(f"layers.{{}}.attention.{name}" for name in ("bias", "masked_bias")),
    variants=(
        {},
        {"use_parallel_residual": False, "tie_word_embeddings": True, "num_attention_heads": 2},
        {"attention_bias": False, "hidden_act": "gelu_fast", "rotary_pct": 1.0, "rotary_emb_base": 100},
    ),
)
"""GPT-NeoX and Pythia: layer norms, both blocks of a layer reading one stream, heads turned in part."""
