"""GGUF files whose converter joined projections, or kept a head that guesses further tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.errors import InputError
from tests.checkpoints.test_gguf import assert_same
from tests.families.gguf_files import gguf_arrays, gguf_model, write_gguf

QKV = ("attn_q", "attn_k", "attn_v")
JOINED: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("llama", {"attention_bias": True}, "attn_qkv", QKV),
    ("qwen2", {"num_key_value_heads": 1}, "attn_qkv", QKV),
    ("qwen3", {}, "attn_qkv", QKV),
    ("glm4", {"partial_rotary_factor": 0.5}, "attn_qkv", QKV),
    ("cohere", {}, "attn_qkv", QKV),
    ("phi", {}, "attn_qkv", QKV),
    ("qwen3_moe", {"norm_topk_prob": True}, "ffn_gate_up_exps", ("ffn_gate_exps", "ffn_up_exps")),
    ("qwen3_5_moe_text", {}, "ffn_gate_up_exps", ("ffn_gate_exps", "ffn_up_exps")),
]


@pytest.mark.parametrize(("family", "changes", "name", "parts"), JOINED, ids=lambda each: str(each)[:24])
def test_joined_projections_are_taken_apart(
    family: str, changes: dict[str, Any], name: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    theirs = gguf_model(family, **changes)
    arrays = gguf_arrays(theirs)
    tensors: dict[str, Any] = {}
    for index in range(theirs.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            names = [f"blk.{index}.{part}.{kind}" for part in parts]
            if all(each in arrays for each in names):
                axis = 1 if name.endswith("exps") else 0
                joined = np.concatenate([arrays[each] for each in names], axis)
                tensors |= {**dict.fromkeys(names), f"blk.{index}.{name}.{kind}": joined}
    assert tensors
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, tensors=tensors), theirs)


def test_keys_and_values_of_latent_attention_in_one_matrix_are_read(tmp_path: Path) -> None:
    """As in older files, whose keys are those by head too."""
    theirs = gguf_model("deepseek_v2")
    tensors: dict[str, Any] = {}
    for index in range(theirs.config.num_hidden_layers):
        joined = theirs.get_parameter(f"model.layers.{index}.self_attn.kv_b_proj.weight").detach().numpy()
        tensors[f"blk.{index}.attn_kv_b.weight"] = joined
        tensors |= dict.fromkeys((f"blk.{index}.attn_k_b.weight", f"blk.{index}.attn_v_b.weight"))
    settings: dict[str, Any] = {"attention.key_length": 16, "attention.value_length": 8}
    settings |= {"attention.head_count_kv": 4}
    settings |= dict.fromkeys(("attention.key_length_mla", "attention.value_length_mla"))
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, tensors=tensors, settings=settings), theirs)


def test_two_tensors_of_one_place_are_refused(tmp_path: Path) -> None:
    theirs = gguf_model("qwen3")
    arrays = gguf_arrays(theirs)
    joined = np.concatenate([arrays[f"blk.0.{part}.weight"] for part in QKV])
    path = write_gguf(tmp_path / "m.gguf", theirs, tensors={"blk.0.attn_qkv.weight": joined})
    with pytest.raises(InputError, match=r"'blk\.0\.attn_q\.weight' and 'blk\.0\.attn_qkv\.weight'"):
        load_checkpoint(path)


@pytest.mark.parametrize("family", ["qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "glm4", "exaone4"])
def test_a_head_that_guesses_further_tokens_is_left_out(family: str, tmp_path: Path) -> None:
    theirs = gguf_model(family)
    layers = theirs.config.num_hidden_layers
    guessing = {
        name.replace(f"blk.{layers - 1}.", f"blk.{layers}."): array
        for name, array in gguf_arrays(theirs).items()
        if name.startswith(f"blk.{layers - 1}.")
    }
    guessing[f"blk.{layers}.nextn.eh_proj.weight"] = np.ones((32, 64), np.float32)
    settings: dict[str, Any] = {"block_count": layers + 1, "nextn_predict_layers": 1}
    path = write_gguf(tmp_path / "m.gguf", theirs, settings=settings, tensors=guessing)
    assert_same(path, theirs)
    wrong = write_gguf(tmp_path / "n.gguf", theirs, settings={"block_count": layers + 1}, tensors=guessing)
    with pytest.raises(InputError):
        load_checkpoint(wrong)


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("granite", {"rope.scaling.finetuned": False}, "granite.rope.scaling.finetuned is false"),
        ("granitemoe", {"expert_used_count": 9}, "granitemoe.expert_used_count is 9"),
        ("olmo2", {"attention.head_count_kv": [2, 1]}, "olmo2.attention.head_count_kv has the values"),
        ("olmo2", {"attention.head_count_kv": [0, 0]}, "is 0 in every layer"),
        ("glm4", {"rope.dimension_sections": [4, 2, 2, 0]}, "glm4.rope.dimension_sections"),
        ("glm4", {"nextn_predict_layers": 2}, "glm4.nextn_predict_layers is 2"),
        ("lfm2_moe", {"expert_gating_func": 1}, "lfm2moe.expert_gating_func is 1"),
        ("ministral3", {"rope.scaling.type": "none"}, "temperature_scale says that queries grow"),
        ("qwen3_5_text", {"ssm.inner_size": 30}, "qwen35.ssm.inner_size is 30"),
        ("qwen3_5_text", {"attention.recurrent_layers": [True]}, "must hold true or false"),
        ("gemma4_text", {"attention.value_length_swa": 4}, "gemma4.attention.value_length_swa"),
        ("gpt_bigcode", {"attention.head_count_kv": 2}, "starcoder.attention.head_count_kv is not 1"),
        ("falcon", {"attention.head_count": 3}, "falcon."),
    ],
    ids=str,
)
def test_what_a_configuration_cannot_say_is_refused_by_the_files_key(
    family: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "m.gguf", gguf_model(family), settings=settings)
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert said in caught.value.message
    assert "Hugging Face directory" in str(caught.value.remedy)


def test_a_dense_granite_4_says_what_experts_it_has_not(tmp_path: Path) -> None:
    theirs = gguf_model("granite")
    settings = {"expert_count": 0, "expert_used_count": 0, "expert_shared_feed_forward_length": 48}
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, settings=settings), theirs)
