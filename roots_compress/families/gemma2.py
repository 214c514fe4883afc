"""Gemma 2: four norms a layer, every second layer with a sliding window, softcaps on scores and logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import BOTH, read_decoder
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import AddOne
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.spec import ModelSpec

WINDOW = 4096
"""Where a configuration does not say it."""
NORM_NAMES = {
    "self_attn_pre_norm": "input_layernorm",
    "self_attn_post_norm": "post_attention_layernorm",
    "mlp_pre_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


GEMMA4: dict[str, Any] = {
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
        switches: the configuration; `finish` is left to the caller.
        pattern: all layers slide but every so-manieth, unless they are told apart.
        cap: the default of the bound of logits.
        scores: the bound of scores.
        others: as `read_decoder` takes them.
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
        **GEMMA4,
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
    return decoder_rules(spec, names=NORM_NAMES, gain=AddOne())


def _read(switches: Switches) -> ModelSpec:
    scores = softcap(switches, "attn_logit_softcapping", 50.0)
    return read_gemma(switches, pattern=2, cap=30.0, scores=scores, context=8192)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    return {**write_gemma(spec), "attn_logit_softcapping": attention.softcap}


FAMILY = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    _read,
    _write,
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
