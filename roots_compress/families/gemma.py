"""Gemma 1 to 3: gains stored as their distance from 1, embeddings scaled by the root of their width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import BOTH, read_decoder
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import FULL, SLIDING, written_ropes
from roots_compress.families.switches import ACTIVATIONS, Switches
from roots_compress.families.text_encoder import as_text_encoder
from roots_compress.families.transforms import ADD_ONE
from roots_compress.models.ops.attention import Attention, QkNorm
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import EmbeddingHead, LmHead
from roots_compress.models.ops.mlp import Activation
from roots_compress.models.spec import ModelSpec

# transformers reads the first Gemma's "gelu" as its tanh form, which the weights were trained with.
GEMMA_ACTIVATIONS: dict[str, Activation] = {**ACTIVATIONS, "gelu": "gelu_tanh"}


def _write_gemma(spec: ModelSpec) -> dict[str, Any]:
    return write_decoder(spec, attention_bias=True)


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    return decoder_rules(spec, gain=ADD_ONE)


GEMMA = Family(
    "gemma",
    "GemmaForCausalLM",
    partial(
        read_decoder,
        head_dim=256,
        kv_heads=16,
        context=8192,
        tied=True,
        activations=GEMMA_ACTIVATIONS,
        activation="gelu_pytorch_tanh",
        scaled=True,
    ),
    _write_gemma,
    _rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "head_dim": 16, "attention_bias": True, "hidden_act": "gelu"},
    ),
)
"""Gemma: gains stored as their distance from 1, embeddings scaled by the root of their width."""


WINDOW = 4096
"""Where a configuration does not say it."""
NORM_NAMES = {
    "self_attn_pre_norm": "input_layernorm",
    "self_attn_post_norm": "post_attention_layernorm",
    "mlp_pre_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


HEADS: dict[str, Any] = {
    "head_dim": 256,
    "kv_heads": 4,
    "tied": True,
    "activation_key": "hidden_activation",
    "activation": "gelu_pytorch_tanh",
}
"""What `read_shape` is told of Gemma 2 to 4."""


def read_gemma(
    switches: Switches, *, pattern: int, cap: float | None, scores: float | None, **others: Any
) -> ModelSpec:
    """Read a configuration of Gemma 2 or 3.

    Args:
        pattern: all layers slide but every so-manieth, unless they are told apart.
        cap: the default of the bound of logits.
        scores: the bound of scores.
    """

    def windows(switches: Switches, layers: int) -> list[int | None]:
        window = switches.optional_number("sliding_window", WINDOW)
        switches.same("sliding_window_size", window)
        slides = [bool((index + 1) % pattern) for index in range(layers)]
        return switches.typed_windows(window, layers, slides)

    factor = float(switches.number("query_pre_attn_scalar", 256) ** -0.5)
    return read_decoder(
        switches,
        windows=windows,
        attention={"scale": factor, "softcap": scores},
        norms=BOTH,
        scaled=True,
        head=LmHead(softcap=softcap(switches, "final_logit_softcapping", cap)),
        whole_heads=True,
        **HEADS,
        **others,
    )


def softcap(switches: Switches, key: str, default: float | None) -> float | None:
    """Take a bound of scores or logits; null means none."""
    if switches.null(key, default):
        return None
    return switches.positive(key, default or 1.0)


def write_gemma(spec: ModelSpec) -> dict[str, Any]:
    """Return what the configurations of Gemma 2 and 3 have in common."""
    attention, _ = first_blocks(spec)
    written = write_decoder(spec, attention_bias=True)
    written["hidden_activation"] = written.pop("hidden_act")
    return {
        **written,
        "query_pre_attn_scalar": round(attention.factor**-2),
        **typed_windows(spec, WINDOW),  # transformers wants one also where no layer slides.
        "final_logit_softcapping": spec.lm_head.softcap,
    }


def gemma_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a model of Gemma 2 or 3."""
    return decoder_rules(spec, names=NORM_NAMES, gain=ADD_ONE)


def _read_gemma2(switches: Switches) -> ModelSpec:
    scores = softcap(switches, "attn_logit_softcapping", 50.0)
    return read_gemma(switches, pattern=2, cap=30.0, scores=scores, context=8192)


def _write_gemma2(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    return {**write_gemma(spec), "attn_logit_softcapping": attention.softcap}


GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    _read_gemma2,
    _write_gemma2,
    gemma_rules,
    variants=(
        {"sliding_window": 5},
        {"sliding_window": 7, "num_key_value_heads": 1, "head_dim": 16},
        {"sliding_window": 5, "attn_logit_softcapping": None, "final_logit_softcapping": None},
        {"sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 6},
        {"layer_types": ["full_attention", "full_attention"], "attention_bias": True},
        {"query_pre_attn_scalar": 11, "hidden_activation": "silu", "sliding_window": 9},
        {"tie_word_embeddings": False, "num_key_value_heads": 4, "sliding_window": 3},
    ),
)
"""Gemma 2: four norms a layer, every second layer with a sliding window, softcaps on scores and logits."""


BOTH_SIDES = "use_bidirectional_attention"
"""As in EmbeddingGemma, which makes vectors of texts."""
ROPES = {FULL: ("rope_theta", 1_000_000.0), SLIDING: ("rope_local_base_freq", 10_000.0)}
"""Where configurations before transformers 5 have the base of the positions, and what it is without."""


def _read_gemma3(switches: Switches) -> ModelSpec:
    pattern = switches.number("sliding_window_pattern", 6)
    switches.same("_sliding_window_pattern", pattern)
    switches.take("attn_logit_softcapping")  # Read by no layer of transformers' Gemma 3.
    sees_all = not switches.null(BOTH_SIDES, False) and switches.flag(BOTH_SIDES, False)
    spec = read_gemma(
        switches, pattern=pattern, cap=None, scores=None, context=131_072, qk_norm=QkNorm(), ropes=ROPES
    )
    if not sees_all:
        return spec
    # The key says how many tokens a window has to both sides together, and ours to each.
    seeing = _with_attention(spec, lambda window: window // 2 + 1, causal=False)
    return as_text_encoder(seeing, EmbeddingHead())


def _with_attention(spec: ModelSpec, sized: Callable[[int], int], *, causal: bool) -> ModelSpec:
    """Return the specification with other windows, and with attention to one side or to both."""
    for place, op in spec.blocks():
        if isinstance(op, Attention):
            window = None if op.window is None else sized(op.window)
            spec = spec.with_op(place, changed(op, causal=causal, window=window))
    return spec


def _write_gemma3(spec: ModelSpec) -> dict[str, Any]:
    sees_all = not all(each.causal for each in spec.attentions())
    if sees_all:
        spec = _with_attention(spec, lambda window: 2 * (window - 1), causal=True)
    written = {**write_gemma(spec), "rope_parameters": written_ropes(spec.attentions(), ROPES)}
    return {**written, BOTH_SIDES: True} if sees_all else written


LINEAR = {
    FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 100.0},
}
GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    _read_gemma3,
    _write_gemma3,
    gemma_rules,
    variants=(
        {"layer_types": [SLIDING, FULL], "sliding_window": 5},
        {"sliding_window": 7, "num_key_value_heads": 1, "head_dim": 16},
        {"layer_types": [FULL, SLIDING], "sliding_window": 6, "rope_parameters": LINEAR},
        {"layer_types": [FULL, FULL], "attention_bias": True},
        {"query_pre_attn_scalar": 11, "sliding_window": 9},
        {"tie_word_embeddings": False, "num_key_value_heads": 4, "sliding_window": 3},
        {"final_logit_softcapping": 3.0, "layer_types": [SLIDING, FULL], "sliding_window": 4},
        {"hidden_activation": "relu", "sliding_window": 30, "layer_types": [SLIDING, FULL]},
    ),
)
"""Gemma 3 (text): Gemma 2's layers with norms of queries and keys, and two kinds of rotary positions."""
