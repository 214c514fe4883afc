"""EXAONE 4: norms after each block and of each head; no positions in full layers where others slide."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.cohere import without_positions
from roots_compress.families.decoder import each_sublayer, read_decoder
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.olmo import NORM_NAMES
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.spec import ModelSpec

WINDOW, PATTERN = 4096, "sliding_window_pattern"


def _windows(switches: Switches, layers: int) -> list[int | None]:
    """Take each layer's window: every `PATTERN`-th has none, unless they are told apart."""
    window = switches.optional_number("sliding_window", WINDOW)
    if switches.said("layer_types", None):
        switches.take(PATTERN)
        return switches.typed_windows(window, layers, [])
    if window is None:
        switches.refuse("without layer_types it must have a sliding_window")
    pattern = switches.number(PATTERN, 4)
    slides = [bool((index + 1) % pattern) for index in range(layers)]
    return switches.typed_windows(window, layers, slides)


def _read(switches: Switches) -> ModelSpec:
    slides = switches.said("sliding_window", WINDOW) is not None
    spec = read_decoder(
        switches,
        windows=_windows,
        biases="none",
        qk_norm=QkNorm(),
        norms=("post_norm",),
        kv_heads=32,
        context=2048,
        eps=1e-5,
    )
    return each_sublayer(spec, without_positions) if slides else spec


def _write(spec: ModelSpec) -> dict[str, Any]:
    # Where no layer slides, a window says that the layers have no positions.
    turned = any(each.rope is not None for each in spec.attentions())
    return {**write_decoder(spec), **typed_windows(spec, None if turned else WINDOW)}


EXAONE4 = Family(
    "exaone4",
    "Exaone4ForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NORM_NAMES),
    variants=(
        {"sliding_window": 5, "sliding_window_pattern": 2},
        {
            "sliding_window": None,
            "layer_types": ["full_attention"] * 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
        },
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "sliding_window": 6,
            "tie_word_embeddings": True,
        },
    ),
)
