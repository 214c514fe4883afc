"""OLMo 3: OLMo 2 with windows in three layers of four, and scaled positions in the others."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.olmo2 import olmo_rules, read_olmo
from roots_compress.families.rope import FULL, SLIDING, written_ropes
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec

THETA = 500_000.0
WINDOW, PATTERN = 4096, 4
ROPES = {FULL: ("rope_theta", THETA), SLIDING: (None, THETA)}
"""The top-level key for the base of the positions, and its default; `rope_theta` is for full attention."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    window = switches.optional_number("sliding_window", WINDOW)
    return switches.typed_windows(window, layers, [bool((index + 1) % PATTERN) for index in range(layers)])


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {
        **write_decoder(spec, attention_bias=True),
        "rope_parameters": written_ropes(spec.attentions(), ROPES),
        **typed_windows(spec, WINDOW),  # transformers wants one also where no layer slides.
    }


YARN = {
    FULL: {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    SLIDING: {"rope_type": "default", "rope_theta": 1000.0},
}
FAMILY = Family(
    "olmo3",
    "Olmo3ForCausalLM",
    partial(read_olmo, windows=_windows, ropes=ROPES),
    _write,
    olmo_rules,
    variants=(
        {"layer_types": [SLIDING, FULL], "sliding_window": 5},
        {
            "layer_types": [SLIDING, FULL],
            "sliding_window": 6,
            "rope_parameters": YARN,
            "num_key_value_heads": 1,
        },
    ),
)
