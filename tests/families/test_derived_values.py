"""What a configuration says by a rule, not by a number of its own, is what transformers makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 8, "num_attention_heads": 2}


def read(name: str, changes: dict[str, Any]) -> ModelSpec:
    family = FAMILIES[name]
    config = {**AutoConfig.for_model(name).to_dict(), "architectures": [family.architecture], **changes}
    return family.read_config(Switches(config, "config.json"))


@pytest.mark.parametrize(
    "changes",
    [
        {"block_ffn_dim_multiplier": 1.3, "block_multiple_of": 16},
        {"block_ffn_dim_multiplier": 1.0, "block_multiple_of": 7},
        {"block_auto_adjust_ff_dim": False},
    ],
    ids=str,
)
def test_the_width_of_an_lfm2_is_rounded_as_by_transformers(changes: dict[str, Any]) -> None:
    given = {**SMALL, "num_key_value_heads": 1, "layer_types": ["full_attention"], "block_ff_dim": 100}
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model("lfm2", **given, **changes))
    mlp = read("lfm2", {**given, "intermediate_size": 100, **changes}).layers[0][1].op
    assert isinstance(mlp, Mlp)
    assert mlp.channels == theirs.model.layers[0].feed_forward.w1.out_features


def test_an_lfm2_without_a_multiplier_has_two_thirds_of_the_width() -> None:
    given = {"intermediate_size": 100, "block_ffn_dim_multiplier": None}  # transformers 5 refuses the null
    mlp = read("lfm2", {**SMALL, "num_key_value_heads": 1, "layer_types": ["full_attention"], **given})
    assert mlp.layers[0][1].op == Mlp(channels=66)


def test_a_fixed_alpha_makes_the_base_that_transformers_turns_by() -> None:
    rope = {"rope_type": "dynamic", "alpha": 100.0, "factor": 1.0, "rope_theta": 1e4}
    given = {**SMALL, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": rope}
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model("hunyuan_v1_dense", **given))
    attention = read("hunyuan_v1_dense", given).layers[0][0].op
    assert isinstance(attention, Attention)
    assert attention.rope is not None
    ours = attention.rope.theta ** -(torch.arange(0, 16, 2).double() / 16)
    torch.testing.assert_close(theirs.model.rotary_emb.inv_freq.double(), ours, rtol=1e-5, atol=0.0)


def test_qwen_3_5_attends_in_every_fourth_layer_where_nothing_says_otherwise() -> None:
    kinds = AutoConfig.for_model("qwen3_5_text", num_hidden_layers=8).layer_types
    spec = read("qwen3_5_text", {"num_hidden_layers": 8, "layer_types": None})
    assert [layer[0].op.keeps for layer in spec.layers] == kinds
