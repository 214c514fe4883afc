"""Every decoder family on configurations unlike its variants: logits, and what is written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from tests.families.sources import DECODERS, SHAPES, save_source, source_model
from tests.families.test_families import assert_same_logits

UNLIKE: list[dict[str, Any]] = [
    {"num_key_value_heads": 4, "intermediate_size": 40},
    {"num_key_value_heads": 1, "vocab_size": 317},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    {"hidden_act": "gelu_new"},
    {"num_hidden_layers": 3},
    {"num_hidden_layers": 1},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1000.0}},
    {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}},
    {"hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 100},
    {"attention_bias": True},
    {"rms_norm_eps": 1e-2, "layer_norm_eps": 1e-2, "norm_eps": 1e-2, "norm_epsilon": 1e-2},
    {"sliding_window": 6},
    {"partial_rotary_factor": 0.75},
]
OTHER_NAMES: list[dict[str, Any]] = [
    {"vocab_size": 317},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"activation_function": "silu"},
    {"layer_norm_epsilon": 1e-2},
    {"n_embd": 64},
    {"n_layer": 1},
    {"n_inner": 100},
    {"hidden_size": 64},
    {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    {"num_hidden_layers": 1},
    {"num_attention_heads": 1},
    {"ffn_dim": 100},
    {"intermediate_size": 100},
    {"max_position_embeddings": 48},
]
"""Those for families whose keys have other names."""
FEWEST = 8
"""Of them and the family's variants that must be read: what a family does not have is refused."""


@pytest.mark.slow
@pytest.mark.parametrize("family", DECODERS)
def test_logits_are_equal_or_the_configuration_is_refused(family: str, tmp_path: Path) -> None:
    read = 0
    for number, changes in enumerate(OTHER_NAMES if family in SHAPES else UNLIKE):
        try:
            theirs = source_model(family, **changes)
        except Exception:  # transformers' classes refuse with errors of many kinds.
            continue
        source = save_source(theirs, tmp_path / f"{number}")
        try:
            ours = load_checkpoint(source)
        except InputError:
            continue
        assert_same_logits(theirs, ours)
        write_back(ours, family, tmp_path / f"{number}-back")
        again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / f"{number}-back")
        assert_same_logits(again, ours)
        read += 1
    assert read + len(FAMILIES[family].variants) >= FEWEST
