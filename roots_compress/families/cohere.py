"""Cohere (Command R, Aya, Command R7B): both blocks of a layer read one layer norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import ReadWindows, each_sublayer, read_decoder
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import DEFAULT_THETA
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY, SCALE = "layer_norm_eps", "logit_scale"


def read_cohere(
    switches: Switches, *, windows: ReadWindows = Switches.no_windows, theta: float = DEFAULT_THETA
) -> ModelSpec:
    """Return what a configuration says, with positions in all layers."""
    return read_decoder(
        switches,
        windows=windows,
        theta=theta,
        parallel=True,
        head=LmHead(scale=switches.positive(SCALE, 0.0625)),
        null_kv_heads=True,
        context=8192,
        tied=True,
        norm=Norm(kind="layer_norm", bias=False),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


def write_cohere(spec: ModelSpec) -> dict[str, Any]:
    """Return what the configurations of Cohere and Cohere 2 have in common."""
    return {**write_decoder(spec, attention_bias=True, eps_key=EPS_KEY), SCALE: spec.lm_head.scale}


def cohere_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a model of Cohere or Cohere 2."""
    return decoder_rules(spec, paired=True)


def _read_cohere(switches: Switches) -> ModelSpec:
    if switches.take("use_qk_norm"):
        switches.refuse("use_qk_norm is true: layer norms of each head's queries and keys are not supported")
    return read_cohere(switches, theta=500_000.0)


COHERE = Family(
    "cohere",
    "CohereForCausalLM",
    _read_cohere,
    write_cohere,
    cohere_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": False, "logit_scale": 0.5},
        {"hidden_act": "gelu", "head_dim": 16},
    ),
)
"""Cohere (Command R, Aya): both blocks of a layer read one layer norm; adjacent channels are turned."""


WINDOW, PATTERN = 4096, "sliding_window_pattern"
SAID = {
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_embedding_sharing": True,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_parallel_embedding": True,
}
"""Keys of published configurations that transformers' class does not read, and what its models do."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    pattern = switches.number(PATTERN, 4)
    switches.same("_sliding_window_pattern", pattern)
    window = switches.optional_number("sliding_window", WINDOW)
    return switches.typed_windows(window, layers, [bool((index + 1) % pattern) for index in range(layers)])


def without_positions(each: Sublayer) -> Sublayer:
    """Return a sublayer without positions, if it has no window."""
    if not isinstance(each.op, Attention) or each.op.window is not None:
        return each
    return changed(each, op=changed(each.op, rope=None))


def _read_cohere2(switches: Switches) -> ModelSpec:
    switches.all_same(SAID)
    switches.leave("layer_switch", "order_of_interleaved_layers")
    return each_sublayer(read_cohere(switches, windows=_windows), without_positions)


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_cohere(spec), **typed_windows(spec, WINDOW)}


COHERE2 = Family(
    "cohere2",
    "Cohere2ForCausalLM",
    _read_cohere2,
    _write,
    cohere_rules,
    variants=(
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
        {"num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": False, "logit_scale": 0.5},
        {"layer_types": ["full_attention"] * 2, "hidden_act": "gelu"},
    ),
)
"""Cohere 2 (Command R7B): Cohere with windows by layer, and no positions in layers without one."""
