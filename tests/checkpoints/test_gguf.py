"""A GGUF file gives the logits of the model it was made from, or a refusal that names what is at fault."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from roots_compress.api import load
from roots_compress.checkpoints.checkpoint import load_checkpoint, without_weights
from roots_compress.checkpoints.fingerprint import source_sha256
from roots_compress.checkpoints.gguf.generation import end_ids
from roots_compress.checkpoints.gguf.tensors import gguf_tensors
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError
from roots_compress.families.gguf.positions import llama3_factors
from roots_compress.families.registry import FAMILIES
from roots_compress.io.gguf_file import READABLE
from roots_compress.runtime.text import load_wishes
from roots_compress.stages.prune.plan import shape_of
from tests.families.gguf_files import ARCHITECTURES, gguf_arrays, gguf_model, write_gguf
from tests.stages.prune.shapes import shape
from tests.tiny import VOCAB_SIZE, tiny_tokens

F32 = np.float32


def assert_same(path: Path, theirs: PreTrainedModel) -> None:
    ours = load_checkpoint(path).model
    tokens = tiny_tokens(2, min(60, ours.config.spec.max_positions))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=0)


ABOVE = frozenset(
    """
    llama mistral qwen2 qwen3 gpt2 gemma gemma2 gemma3_text phi3 starcoder2 nemotron stablelm lfm2 qwen3_moe
    mixtral
    """.split()  # noqa: SIM905
)
"""Families whose models are listed one by one."""
UNSAID = {"hidden_act", "hidden_activation", "activation", "activation_function"}
"""Switches that llama.cpp has no key for: its architecture says them."""
OF_FAMILY = {
    "olmoe": {"norm_topk_prob"},
    "smollm3": {"no_rope_layer_interval", "no_rope_layers"},
    "lfm2_moe": {"norm_topk_prob", "tie_word_embeddings"},
    "gpt_oss": {"swiglu_limit"},
    "ministral3": {"sliding_window"},
    "cohere": {"tie_word_embeddings"},
    "cohere2": {"tie_word_embeddings"},
    "hunyuan_v1_dense": {"rope_parameters"},
    "falcon": {"parallel_attn"},
    "gpt_bigcode": {"scale_attn_weights"},
    "falcon_h1": {"attention_bias"},
    "gemma4_text": {"attention_bias"},
    "deepseek_v2": {"attention_bias", "mlp_bias", "rope_parameters"},
    "deepseek_v3": {"attention_bias", "rope_parameters"},
    "qwen3_next": {"norm_topk_prob", "mlp_only_layers", "decoder_sparse_step"},
    "qwen2_moe": {"norm_topk_prob", "mlp_only_layers", "decoder_sparse_step", "use_sliding_window"},
}


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the variants of the families that are not listed, as far as GGUF can say them."""
    for family in ARCHITECTURES:
        for changes in () if family in ABOVE else FAMILIES[family].variants:
            if not (UNSAID | OF_FAMILY.get(family, set())) & changes.keys():
                yield family, dict(changes)


LARGER: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
}
"""YaRN whose factor is on scores, and not on cosines."""
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True, "num_key_value_heads": 4}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    ("mistral", {"sliding_window": None, "head_dim": 16}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 16}),
    ("qwen3", {"attention_bias": True}),
    ("gpt2", {}),
    ("gpt2", {"n_inner": 40, "tie_word_embeddings": False}),
    ("gemma", {"head_dim": 16}),
    ("gemma2", {"sliding_window": 5, "query_pre_attn_scalar": 8}),
    ("gemma2", {"sliding_window": 5, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0}),
    ("gemma3_text", {"sliding_window": 5, "query_pre_attn_scalar": 8, "num_hidden_layers": 7}),
    ("phi3", {"sliding_window": 7}),
    ("phi3", {"partial_rotary_factor": 0.5, "num_key_value_heads": 1}),
    ("phi3", dict(FAMILIES["phi3"].variants[5])),
    ("phi3", dict(FAMILIES["phi3"].variants[6])),
    ("starcoder2", {"sliding_window": None, "use_bias": True}),
    ("nemotron", {"partial_rotary_factor": 0.5, "num_key_value_heads": 1}),
    ("stablelm", {"partial_rotary_factor": 0.25, "use_qkv_bias": True}),
    ("stablelm", {"tie_word_embeddings": True, "partial_rotary_factor": 1.0}),
    ("lfm2", {"num_hidden_layers": 3}),
    ("qwen3_moe", {"norm_topk_prob": True}),
    ("qwen3_moe", {"norm_topk_prob": True, "num_experts": 4, "head_dim": 16}),
    ("mixtral", {}),
    ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 1, "head_dim": 16}),
    *variants(),
    ("deepseek_v2", {"rope_parameters": LARGER, "q_lora_rank": None}),
    ("deepseek_v3", {"rope_parameters": {**LARGER, "mscale": 1.0, "mscale_all_dim": 1.0}}),
    ("smollm3", {"num_hidden_layers": 5}),
    ("smollm3", {"num_hidden_layers": 4, "attention_bias": True, "tie_word_embeddings": False}),
    ("olmoe", {"num_key_value_heads": 1, "num_experts_per_tok": 3, "tie_word_embeddings": True}),
    ("falcon", {"num_attention_heads": 2, "tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("family", "changes"), MODELS, ids=str)
def test_logits_are_the_models_own(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = gguf_model(family, **changes)
    path = write_gguf(tmp_path / "m.gguf", theirs)
    assert_same(path, theirs)
    info = inspect_source(path)
    assert without_weights(info).num_parameters() == load_checkpoint(path).model.num_parameters()
    grows = family == "ministral3" and "rope_parameters" in changes
    assert info.limits.max_context == (32 if grows else 64)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma2", {"head_dim": 256, "sliding_window": 5}),
        ("gemma3_text", {"head_dim": 256, "sliding_window": 5, "num_hidden_layers": 7}),
        ("phi3", {"num_key_value_heads": 1}),
        ("qwen3_moe", {"norm_topk_prob": True, "moe_intermediate_size": 768}),
    ],
    ids=str,
)
def test_transformers_reads_the_newer_families_alike(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """What it does not read of a file (the factor on scores, experts' widths) has its defaults here."""
    general = {"tokenizer.ggml.padding_token_id": 2}
    path = write_gguf(tmp_path / "m.gguf", gguf_model(family, **changes), general=general)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    assert_same(path, theirs.eval())


def test_biases_of_some_projections_are_read(tmp_path: Path) -> None:
    """A Qwen model written as Llama has them on q, k and v alone."""
    theirs = gguf_model("llama", attention_bias=True)
    for layer in theirs.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.bias)
    without = {f"blk.{index}.attn_output.bias": None for index in range(2)}
    path = write_gguf(tmp_path / "m.gguf", theirs, tensors=without)
    assert_same(path, theirs)
    assert not load_checkpoint(path).model.config.spec.attentions()[0].output_bias


ROTATED = {"rope_theta": 500.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
POSITIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no factor": ({}, {"rope.scaling.type": "linear"}),
    "factor 1": ({}, {"rope.scaling.factor": 1.0}),
    "none": ({}, {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
    "linear": (
        {"rope_type": "linear", "factor": 4.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0, "rope.scaling.finetuned": True},
    ),
    "factor alone": ({"rope_type": "linear", "factor": 4.0}, {"rope.scaling.factor": 4.0}),
    "older key": ({"rope_type": "linear", "factor": 2.5}, {"rope.scale_linear": 2.5}),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 16,
        },
    ),
    "yarn with its factor": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 16,
            "rope.scaling.yarn_attn_factor": 1 + 0.1 * math.log(4.0),
        },
    ),
    "yarn of the whole context": (
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_beta_fast": 32.0},
    ),
}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("case", POSITIONS)
def test_scaled_positions_are_read(family: str, case: str, tmp_path: Path) -> None:
    parameters, settings = POSITIONS[case]
    theirs = gguf_model(family, rope_parameters={"rope_type": "default", **ROTATED, **parameters})
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, settings=settings), theirs)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_factors_of_llama_3_are_read(factor: float, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, **LLAMA3}
    theirs = gguf_model("llama", head_dim=64, max_position_embeddings=131072, rope_parameters=rope)
    plain = theirs.model.rotary_emb.compute_default_rope_parameters(theirs.config)[0]
    factors = (plain / theirs.model.rotary_emb.inv_freq).numpy()
    np.testing.assert_allclose(llama3_factors(factor, 500000.0, 64), factors, rtol=1e-5)
    assert factors[-1] == pytest.approx(factor)
    assert (factors > 1).sum() > (factors == factor).sum() > 0
    path = write_gguf(tmp_path / "m.gguf", theirs, tensors={"rope_freqs.weight": factors})
    assert_same(path, theirs)
    (read, _) = load_checkpoint(path).model.config.spec.attentions()
    assert read.rope is not None
    assert read.rope.parameters() == rope


def test_factors_of_one_change_nothing(tmp_path: Path) -> None:
    theirs = gguf_model("llama")
    ones = {"rope_freqs.weight": np.ones(4, F32)}
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, tensors=ones), theirs)


def test_a_number_for_each_layer_is_read(tmp_path: Path) -> None:
    theirs = gguf_model("llama")
    narrow = {
        "blk.1.ffn_gate.weight": np.ones((16, 32), F32),
        "blk.1.ffn_up.weight": np.ones((16, 32), F32),
        "blk.1.ffn_down.weight": np.ones((32, 16), F32),
        "blk.1.attn_k.weight": np.ones((8, 32), F32),
        "blk.1.attn_v.weight": np.ones((8, 32), F32),
    }
    settings = {
        "feed_forward_length": [48, 16],
        "attention.head_count": [4, 4],
        "attention.head_count_kv": [2, 1],
    }
    path = write_gguf(tmp_path / "m.gguf", theirs, settings=settings, tensors=narrow)
    info = inspect_source(path)
    assert list(map(shape_of, info.spec.layers)) == [shape(2, 2, 48), shape(1, 4, 16)]
    expected_state = without_weights(info).state_dict()
    for name, tensor in gguf_tensors(info):
        assert tensor.shape == expected_state[name].shape


@pytest.mark.parametrize("name", ["mistral", "Mistral 7B", "llama"])
def test_the_name_of_a_model_is_only_a_name(name: str, tmp_path: Path) -> None:
    theirs = gguf_model("llama")
    path = write_gguf(tmp_path / "m.gguf", theirs, general={"general.name": name})
    assert inspect_source(path).spec == inspect_source(write_gguf(tmp_path / "n.gguf", theirs)).spec


SAID = {
    "tokenizer.ggml.eot_token_id": 9,
    "tokenizer.ggml.eom_token_id": VOCAB_SIZE + 2,  # The vocabulary has no token of that number.
    "general.sampling.temp": 0.6,
    "general.sampling.top_k": 20,
    "general.sampling.penalty_repeat": 1.3,
}


def test_what_a_file_says_of_generation_is_heeded(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", gguf_model("llama"), general=SAID)
    settings = load_checkpoint(path).model.generation_config
    ends = [1, 9, VOCAB_SIZE + 1]  # As the last is spelt: <|endoftext|>
    assert settings.eos_token_id == ends
    assert (settings.do_sample, settings.temperature, settings.top_k) == (True, 0.6, 20)
    opened = load(path)
    wishes = load_wishes(path, opened.tokenizer, opened.engine.vocab_size)
    assert wishes.stop_tokens == tuple(ends)
    assert wishes.settings.repetition_penalty == 1.3


ENDING: list[tuple[dict[str, int], list[str], list[int]]] = [
    ({}, ["a", "b"], []),
    ({"eos": 1}, ["a", "b"], [1]),
    ({"eos": 0, "eot": 1, "eom": 0}, ["a", "b"], [0, 1]),
    ({"eos": 2}, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<reponame>", "<file_sep>"], [2, 3, 0]),
    ({}, ["<|end|>", "<|return|>", "a"], [0, 1]),
    ({"eos": 0}, ["<|end|>", "<|return|>", "<|call|>"], [1, 2]),
    ({}, ["<|end|>", "<|flush|>", "<|calls|>"], [1, 2]),
    ({"eos": 1}, ["</s>", "<eos>", "<turn|>", "<|tool_response>"], [1, 2, 3]),
    ({"eos": 1, "fim_sep": 0}, ["a", "</s>", "<PAD>", "[PAD]", "<|file_sep|>"], [1, 2, 0]),
]


@pytest.mark.parametrize(("named", "tokens", "ends"), ENDING)
def test_texts_end_where_llama_cpp_ends_them(
    named: dict[str, int], tokens: list[str], ends: list[int]
) -> None:
    keys = {f"tokenizer.ggml.{name}_token_id": number for name, number in named.items()}
    assert end_ids(keys, tokens) == ends


def test_a_setting_of_generation_that_is_none_is_refused(tmp_path: Path) -> None:
    general = {"general.sampling.penalty_repeat": -1.0}
    with pytest.raises(InputError, match="repetition_penalty is -1"):
        load_checkpoint(write_gguf(tmp_path / "m.gguf", gguf_model("llama"), general=general))


HARMLESS: list[dict[str, Any]] = [
    {"expert_count": 0, "expert_used_count": 0},
    {"attention.causal": True, "leading_dense_block_count": 0, "rope.scaling.yarn_log_multiplier": 0.0},
    {"logit_scale": 1.0, "attn_logit_softcapping": 0.0},
    {"tensor_data_layout": "Meta AI original pth"},
    {"attention.layer_norm_epsilon": 1e-6},
    {"vocab_size": None, "attention.key_length": None, "attention.value_length": None},
    {"rope.dimension_count": None, "attention.sliding_window": 0},
]


@pytest.mark.parametrize("settings", HARMLESS, ids="-".join)
def test_keys_that_say_nothing_are_let_through(settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = gguf_model("llama")
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, settings=settings), theirs)


def test_absent_keys_mean_llama_cpps_defaults(tmp_path: Path) -> None:
    theirs = gguf_model("llama", num_key_value_heads=4)
    left_out = {"attention.head_count_kv": None, "rope.freq_base": None}
    assert_same(write_gguf(tmp_path / "m.gguf", theirs, settings=left_out), theirs)


def vector(length: int) -> np.ndarray[Any, Any]:
    return np.full(length, 0.5, F32)


TENSORS: list[tuple[str, str, int]] = [
    ("llama", "blk.0.attn_sub_norm.weight", 32),
    ("llama", "blk.0.ffn_sub_norm.weight", 48),
    ("llama", "blk.0.attn_q_norm.weight", 8),
    ("llama", "blk.1.attn_k_norm.weight", 8),
    ("llama", "blk.0.ffn_gate_inp.weight", 32),
    ("llama", "blk.0.ffn_norm.bias", 32),
    ("llama", "blk.0.attn_norm.bias", 32),
    ("llama", "output_norm.bias", 32),
    ("llama", "output.bias", 302),
    ("llama", "blk.0.post_attention_norm.weight", 32),
    ("llama", "blk.0.post_ffw_norm.weight", 32),
    ("llama", "blk.0.attn_q.scale", 1),
    ("llama", "blk.0.attn_q.weight.lora_a", 32),
    ("llama", "blk.2.attn_norm.weight", 32),
    ("llama", "blk.10.attn_q.bias", 32),
    ("llama", "blk.00.attn_q.bias", 32),
    ("llama", "rope_factors_long.weight", 4),
    ("llama", "position_embd.weight", 32),
    ("llama", "token_types.weight", 32),
    ("llama", "token_embd_norm.weight", 32),
    ("llama", "cls.weight", 32),
    ("llama", "mm.0.weight", 32),
    ("qwen2", "blk.0.attn_output.bias", 32),
    ("qwen2", "blk.0.ffn_up.bias", 48),
    ("qwen2", "blk.0.attn_q_norm.weight", 8),
    ("qwen3", "blk.0.ffn_down.bias", 32),
    ("qwen3", "blk.0.attn_q_norm.bias", 8),
    ("qwen3", "output.bias", 302),
    ("gpt2", "blk.0.attn_q.weight", 32),
    ("gpt2", "rope_freqs.weight", 4),
    ("gpt2", "blk.0.attn_q_norm.weight", 8),
    ("gemma2", "blk.0.attn_q_norm.weight", 8),
    ("phi3", "blk.0.ffn_gate.weight", 32),
    ("phi3", "rope_freqs.weight", 4),
    ("qwen3_moe", "blk.0.ffn_gate_inp.bias", 6),
]


@pytest.mark.parametrize(("family", "name", "length"), TENSORS, ids=str)
def test_a_tensor_without_a_place_is_refused(family: str, name: str, length: int, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", gguf_model(family), tensors={name: vector(length)})
    error = refusal(path)
    assert repr(name) in error.message
    assert "m.gguf" in str(error.where)
    assert error.remedy


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "blk.1.attn_q.weight"),
        ("llama", "output_norm.weight"),
        ("llama", "token_embd.weight"),
        ("qwen2", "blk.0.attn_k.bias"),
        ("qwen3", "blk.1.attn_q_norm.weight"),
        ("gpt2", "blk.0.attn_qkv.bias"),
        ("gpt2", "position_embd.weight"),
    ],
)
def test_an_absent_tensor_is_named(family: str, name: str, tmp_path: Path) -> None:
    assert name in refusal(write_gguf(tmp_path / "m.gguf", gguf_model(family), tensors={name: None})).message


@pytest.mark.parametrize("name", ["blk.1.attn_k.bias", "blk.0.attn_output.bias", "blk.1.ffn_gate.bias"])
def test_an_absent_bias_among_others_is_named(name: str, tmp_path: Path) -> None:
    theirs = gguf_model("llama", attention_bias=True, mlp_bias=True)
    assert name in refusal(write_gguf(tmp_path / "m.gguf", theirs, tensors={name: None})).message


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"expert_count": 8, "expert_used_count": 9}),
    ("llama", {"rope.scaling.type": "longrope"}),
    ("llama", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.attn_factor": 1.5}),
    ("llama", {"rope.scaling.yarn_log_multiplier": 0.1}),
    ("llama", {"rope.scaling.yarn_beta_fast": 16.0}),
    (
        "llama",
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_attn_factor": 1.3},
    ),
    ("llama", {"rope.scaling.factor": -2.0}),
    ("llama", {"rope.dimension_count": 4}),
    ("qwen2", {"rope.dimension_count": 4}),
    ("qwen2", {"rope.dimension_sections": [1, 1, 2, 0]}),
    ("llama", {"attention.scale": 0.5}),
    ("llama", {"attention.sliding_window": 16}),
    ("llama", {"attention.value_length": 16}),
    ("llama", {"attention.key_length": 16, "attention.value_length": 8}),
    ("llama", {"attention.head_count": [4, 4, 4]}),
    ("llama", {"attention.head_count_kv": [2, 0]}),
    ("llama", {"attention.layer_norm_epsilon": 1e-3}),
    ("llama", {"attention.layer_norm_rms_epsilon": None}),
    ("llama", {"attention.layer_norm_rms_epsilon": 0.0}),
    ("gpt2", {"attention.layer_norm_epsilon": None}),
    ("gpt2", {"context_length": 32}),
    ("gpt2", {"rope.freq_base": 10000.0}),
    ("llama", {"attention.causal": False}),
    ("llama", {"logit_scale": 0.5}),
    ("llama", {"residual_scale": 0.5}),
    ("llama", {"final_logit_softcapping": 30.0}),
    ("llama", {"pooling_type": 4}),
    ("llama", {"vocab_size": 300}),
    ("llama", {"block_count": 1000}),
    ("llama", {"block_count": None}),
    ("llama", {"context_length": None}),
    ("llama", {"some_new_switch": 1}),
    ("qwen3", {"some_new_switch": "on"}),
    ("llama", {"rope.freq_base": float("nan")}),
    ("gemma3_text", {"attention.sliding_window_pattern": [True]}),
    ("gemma2", {"attn_logit_softcapping": -1.0}),
    ("gemma2", {"rope.freq_base_swa": 5000.0}),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}),
    ("phi3", {"rope.scaling.type": "yarn"}),
    ("phi3", {"rope.scaling.attn_factor": 1.2}),
    ("phi3", {"rope.scaling.yarn_beta_fast": 16.0}),
    ("phi3", {"rope.dimension_count": 16}),
    ("qwen3_moe", {"expert_used_count": 9}),
    ("qwen3_moe", {"expert_count": None}),
    ("qwen3_moe", {"expert_gating_func": 2}),
    (
        "llama",
        {
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 4.0,
            "rope.scaling.yarn_attn_factor": 1 + 0.1 * math.log(4),
        },
    ),
    ("gpt_oss", {"rope.freq_base_swa": 500.0}),
    ("cohere2", {"rope.freq_base_swa": 500.0}),
    ("exaone4", {"rope.freq_base_swa": 500.0}),
    ("olmoe", {"expert_weights_norm": True}),
    ("qwen2_moe", {"expert_weights_norm": True}),
]


@pytest.mark.parametrize(("family", "settings"), SETTINGS, ids=str)
def test_a_key_beyond_us_is_refused_by_name(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    error = refusal(write_gguf(tmp_path / "m.gguf", gguf_model(family), settings=settings))
    architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[family]]
    assert f"{architecture}.{list(settings)[-1]}" in error.message
    assert error.remedy


@pytest.mark.parametrize(
    "factors",
    [vector(4), np.array([1, 1, 1, 3], F32), np.ones(3, F32), -np.ones(4, F32), np.full(4, np.nan, F32)],
    ids=["all half", "no Llama's", "too few", "negative", "nan"],
)
def test_other_factors_of_frequencies_are_refused(factors: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", gguf_model("llama"), tensors={"rope_freqs.weight": factors})
    assert "rope_freqs.weight" in refusal(path).message


KINDS: list[tuple[dict[str, Any], str]] = [
    ({"general.type": "adapter", "adapter.type": "lora"}, "an adapter"),
    ({"adapter.type": "lora", "adapter.lora.alpha": 8.0}, "an adapter"),
    ({"general.type": "mmproj"}, "encoder"),
    ({"clip.has_vision_encoder": True}, "encoder"),
    ({"general.type": "imatrix"}, "statistics"),
    ({"general.type": "vocab"}, "vocabulary"),
    ({"general.architecture": "controlvector"}, "control vector"),
    ({"general.architecture": "clip"}, "encoder"),
    ({"general.architecture": "mamba"}, "'mamba'"),
    ({"general.type": "something"}, "'something'"),
]


@pytest.mark.parametrize(("general", "words"), KINDS, ids=str)
def test_what_is_no_model_is_refused_by_its_kind(general: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    if "general.architecture" in general:
        write_bare(path, general["general.architecture"])
    else:
        write_gguf(path, gguf_model("llama"), general=general)
    error = refusal(path)
    assert words in error.message
    assert error.remedy


def write_bare(path: Path, architecture: str) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tensor("direction.1", vector(32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FORMS = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4")
STORED = [gguf.GGMLQuantizationType[name] for name in FORMS]


@pytest.mark.parametrize("storage", STORED, ids=lambda storage: storage.name)
def test_stored_values_are_those_of_the_format(storage: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    theirs = gguf_model("qwen2", intermediate_size=64)
    path = write_gguf(tmp_path / "m.gguf", theirs, storage=storage)
    state = load_checkpoint(path).model.state_dict()
    up = gguf_arrays(theirs)["blk.1.ffn_up.weight"]
    expected = gguf.dequantize(gguf.quantize(up, storage), storage)
    np.testing.assert_array_equal(state["model.layers.1.mlp.up_proj.weight"].numpy(), expected)


@pytest.mark.parametrize("name", sorted(READABLE))
def test_every_readable_type_can_be_read(name: str) -> None:
    storage = gguf.GGMLQuantizationType[name]
    items, size = gguf.GGML_QUANT_SIZES[storage]
    assert gguf.dequantize(np.zeros((2, size), np.uint8), storage).shape == (2, items)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int16, np.int32, np.int64])
def test_other_types_are_refused_by_tensor(dtype: Any, tmp_path: Path) -> None:
    odd = {"blk.0.attn_norm.weight": np.ones(32, dtype)}
    error = refusal(write_gguf(tmp_path / "m.gguf", gguf_model("llama"), tensors=odd))
    assert "'blk.0.attn_norm.weight' is stored as" in error.message


def split(folder: Path, model: PreTrainedModel, parts: int = 3, **general: Any) -> list[Path]:
    """Write a model in parts as `llama-gguf-split` does: the metadata in the first, the tensors dealt out."""
    arrays = gguf_arrays(model)
    names = sorted(arrays)
    paths = []
    for index in range(parts):
        mine = set(names[index::parts])
        path = folder / f"m-{index + 1:05d}-of-{parts:05d}.gguf"
        keys = {"split.no": index, "split.count": parts, "split.tensors.count": len(names), **general}
        if index == 0:
            left_out = {name: None for name in names if name not in mine}
            write_gguf(path, model, general=keys, tensors=left_out)
        else:
            writer = gguf.GGUFWriter(path, "llama")
            for key, value in keys.items():
                writer.add_uint32(key, value)
            # The library always names the architecture; llama.cpp's tool does not.
            writer.kv_data[0].pop("general.architecture")
            for name in sorted(mine):
                writer.add_tensor(name, arrays[name])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        paths.append(path)
    return paths


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    theirs = gguf_model("llama")
    parts = split(tmp_path, theirs)
    assert_same(parts[0], theirs)
    before = source_sha256(parts[0])
    data = bytearray(parts[2].read_bytes())
    data[-1] ^= 1
    parts[2].write_bytes(data)
    assert source_sha256(parts[0]) != before


def test_an_absent_part_is_named(tmp_path: Path) -> None:
    parts = split(tmp_path, gguf_model("llama"))
    parts[1].unlink()
    error = refusal(parts[0])
    assert parts[1].name in str(error.where)
    assert "part 2 of 3" in error.message


def test_another_part_than_the_first_names_the_first(tmp_path: Path) -> None:
    parts = split(tmp_path, gguf_model("llama"))
    assert parts[0].name in str(refusal(parts[1]).remedy)


def test_a_part_of_another_name_is_refused(tmp_path: Path) -> None:
    parts = split(tmp_path, gguf_model("llama"))
    error = refusal(parts[0].rename(tmp_path / "model.gguf"))
    assert "part 1 of 3" in error.message
    assert "merge" in str(error.remedy)


def test_parts_of_two_models_are_refused(tmp_path: Path) -> None:
    parts = split(tmp_path, gguf_model("llama"))
    parts[1].write_bytes(parts[2].read_bytes())
    assert "part 2 of 3" in refusal(parts[0]).message
    parts = split(tmp_path, gguf_model("llama"), **{"split.tensors.count": 5})
    assert "5 tensors" in refusal(parts[0]).message


def test_a_merged_model_may_keep_its_name(tmp_path: Path) -> None:
    theirs = gguf_model("llama")
    path = write_gguf(tmp_path / "m-00001-of-00002.gguf", theirs, general={"split.count": 0, "split.no": 0})
    assert inspect_source(path).parameters == theirs.num_parameters()


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    return caught.value
