"""Every family's logits equal transformers' own; what cannot be imported exactly is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.llama import LLAMA3_ROPE
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from tests.families.sources import DECODERS, QUICK, each_family, save_source, source_config, source_model
from tests.tiny import tiny_checkpoint, tiny_layer, tiny_tokens

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    (family, dict(changes)) for family in DECODERS for changes in FAMILIES[family].variants
]
CASES = [
    pytest.param(
        family,
        changes,
        id=f"{family}-{'-'.join(changes) or 'plain'}",
        marks=() if family in QUICK or changes == FAMILIES[family].variants[0] else pytest.mark.slow,
    )
    for family, changes in VARIANTS
]


def assert_same_logits(theirs: PreTrainedModel, ours: Checkpoint) -> None:
    """Compare a plain batch, and the real tokens of a left-padded one."""
    tokens = tiny_tokens(2, 24)
    mask = torch.ones_like(tokens)
    mask[0, :9] = 0
    with torch.no_grad():
        torch.testing.assert_close(ours.model(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=0)
        ours_padded = ours.model(tokens, attention_mask=mask).logits
        # transformers' GPT-2 takes positions from the caller: its own default counts padding too.
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        theirs_padded = theirs(tokens, attention_mask=mask, position_ids=positions).logits
    seen = mask.bool()
    torch.testing.assert_close(ours_padded[seen], theirs_padded[seen], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_logits_equal_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Of the family's model, and of ours written back."""
    theirs = source_model(family, **changes)
    ours = load_checkpoint(save_source(theirs, tmp_path / "theirs"))
    assert_same_logits(theirs, ours)
    write_back(ours, family, tmp_path / "back")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    again, loading = loaded
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert_same_logits(again, ours)


@pytest.mark.parametrize("family", each_family())
def test_sharded_checkpoint_equals_single_file(family: str, tmp_path: Path) -> None:
    theirs = source_model(family)
    save_source(theirs, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same_logits(theirs, load_checkpoint(tmp_path))


@pytest.mark.parametrize("family", each_family())
def test_names_without_the_prefix_are_understood(family: str, tmp_path: Path) -> None:
    theirs = source_model(family)
    save_source(theirs, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix(FAMILIES[family].prefix): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors")
    assert_same_logits(theirs, load_checkpoint(tmp_path))


def test_spelling_of_rope_before_transformers_5_is_understood(tmp_path: Path) -> None:
    theirs = source_model("llama", rope_parameters=LLAMA3_ROPE)
    save_source(theirs, tmp_path)
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    edit_config(tmp_path, rope_parameters=None, rope_theta=500.0, rope_scaling=scaling)
    assert_same_logits(theirs, load_checkpoint(tmp_path))


def test_ministral_3_ends_where_its_queries_begin_to_grow() -> None:
    config = json.loads(source_config("ministral3").to_json_string())
    rope = {**config["rope_parameters"], "original_max_position_embeddings": 48}
    read = FAMILIES["ministral3"].read_config(Switches({**config, "rope_parameters": rope}, "config.json"))
    assert (read.max_positions, config["max_position_embeddings"]) == (48, 64)


def test_windows_before_transformers_5_are_understood(tmp_path: Path) -> None:
    save_source(source_model("qwen2"), tmp_path)
    edit_config(tmp_path, use_sliding_window=True, sliding_window=5, max_window_layers=1, layer_types=None)
    assert_same_logits(AutoModelForCausalLM.from_pretrained(tmp_path), load_checkpoint(tmp_path))


def test_scaled_rope_without_its_original_length_is_understood(tmp_path: Path) -> None:
    save_source(source_model("llama"), tmp_path)
    edit_config(tmp_path, rope_parameters={"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0})
    assert_same_logits(AutoModelForCausalLM.from_pretrained(tmp_path), load_checkpoint(tmp_path))


def test_buffers_of_old_gpt2_checkpoints_are_passed_over(tmp_path: Path) -> None:
    theirs = source_model("gpt2")
    save_source(theirs, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same_logits(theirs, load_checkpoint(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sources_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    halved: Any = source_model("llama")
    halved.to(dtype)
    ours = load_checkpoint(save_source(halved, tmp_path))
    assert ours.model.dtype == torch.float32
    assert_same_logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32), ours)


def test_dtype_can_be_asked_for(tmp_path: Path) -> None:
    source = save_source(source_model("llama"), tmp_path)
    assert load_checkpoint(source, dtype=torch.float16).model.dtype == torch.float16


def test_imported_weights_do_not_hang_on_the_file(tmp_path: Path) -> None:
    source = save_source(source_model("llama"), tmp_path)
    ours = load_checkpoint(source)
    before = ours.model(tiny_tokens()).logits
    (source / "model.safetensors").write_bytes(bytes((source / "model.safetensors").stat().st_size))
    torch.testing.assert_close(ours.model(tiny_tokens()).logits, before, atol=0, rtol=0)


def test_generation_settings_that_transformers_would_not_write_are_left_out(tmp_path: Path) -> None:
    """Llama 2 was published with a temperature and without sampling."""
    save_source(source_model("llama"), tmp_path / "theirs")
    settings = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": [1, 7]}
    (tmp_path / "theirs" / "generation_config.json").write_text(json.dumps(settings))
    save_checkpoint(load_checkpoint(tmp_path / "theirs"), tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours").model.generation_config
    assert again.eos_token_id == [1, 7]
    assert again.temperature is None


def test_several_end_tokens_are_kept(tmp_path: Path) -> None:
    theirs = source_model("llama")
    theirs.generation_config.eos_token_id = [1, 7]
    save_source(theirs, tmp_path / "theirs")
    save_checkpoint(load_checkpoint(tmp_path / "theirs"), tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours").model
    assert again.generation_config.eos_token_id == [1, 7]
    assert (again.config.bos_token_id, again.config.eos_token_id, again.config.pad_token_id) == (0, 1, 2)


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
    ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    ("llama", {"partial_rotary_factor": 0.5}),
    ("llama", {"num_local_experts": 8}),
    ("llama", {"attn_logit_softcapping": 50.0}),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}),
    ("llama", {"rope_interleaved": True}),
    ("llama", {"hidden_act": "mish"}),
    ("llama", {"hidden_size": "32"}),
    ("llama", {"hidden_size": 30, "head_dim": None}),
    ("llama", {"num_key_value_heads": 3}),
    ("llama", {"num_hidden_layers": None}),
    ("llama", {"tie_word_embeddings": "no"}),
    ("llama", {"rms_norm_eps": -1.0}),
    ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}),
    ("gemma", {"use_bidirectional_attention": True}),
    ("gpt2", {"reorder_and_upcast_attn": True}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt2", {"add_cross_attention": True}),
    ("gpt2", {"n_head": 5}),
    ("granitemoehybrid", {"layer_types": ["mamba", "mamba"]}),
    ("granitemoehybrid", {"layer_types": ["mamba", "attention"], "time_step_limit": [0.1, 1.0]}),
    ("granitemoehybrid", {"layer_types": ["mamba", "attention"], "mamba_proj_bias": True}),
    ("granitemoehybrid", {"hidden_act": "gelu", "layer_types": ["mamba", "attention"]}),
    ("falcon_h1", {"hidden_act": "gelu"}),
    ("falcon_h1", {"mamba_rms_norm": True, "mamba_norm_before_gate": True}),
    ("granitemoehybrid", {"layer_types": ["mamba", "attention"], "time_step_limit": None}),
    ("falcon_h1", {"time_step_limit": None}),
    ("falcon_h1", {"time_step_limit": [0.0, 0.1]}),
    ("falcon_h1", {"projectors_bias": True}),
    ("falcon_h1", {"ssm_multipliers": [1.0, 2.0]}),
    ("granite_swa", {"layer_rope_theta": [10000.0]}),
    ("qwen3_next", {"mlp_only_layers": "all"}),
    ("stablelm", {"qk_layernorm": True}),
    ("opt", {"do_layer_norm_before": False}),
    ("olmoe", {"clip_qkv": 8.0}),
]


@pytest.mark.parametrize(
    ("family", "named"),
    [("llama", "LlamaForQuestionAnswering"), ("gpt2", "GPT2ForTokenClassification")],
)
def test_a_class_with_another_head_is_refused_by_name(family: str, named: str, tmp_path: Path) -> None:
    save_source(source_model(family), tmp_path)
    edit_config(tmp_path, architectures=[named])
    with pytest.raises(InputError, match=f"{named}, which does not write text"):
        load_checkpoint(tmp_path)
    edit_config(tmp_path, architectures=["LlamaModel"])
    load_checkpoint(tmp_path)


@pytest.mark.parametrize(("family", "changes"), REFUSED, ids=[f"{f}-{'-'.join(c)}" for f, c in REFUSED])
def test_switches_beyond_roots_are_refused_by_name(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    save_source(source_model(family), tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path)
    assert "config.json" in str(caught.value)
    assert re.search("|".join([*changes, "rope_type"]), caught.value.message)


def test_leftover_tensor_is_an_error(tmp_path: Path) -> None:
    save_source(source_model("llama", attention_bias=True), tmp_path)
    edit_config(tmp_path, attention_bias=False)
    with pytest.raises(InputError, match="no place"):
        load_checkpoint(tmp_path)


def test_tensor_of_no_rule_is_an_error(tmp_path: Path) -> None:
    save_source(source_model("llama"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "vision_tower.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="vision_tower"):
        load_checkpoint(tmp_path)


def test_tensors_of_an_adapter_among_the_weights_are_told(tmp_path: Path) -> None:
    save_source(source_model("llama"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2)}
    save_file({**tensors, **extra}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="lora_A") as caught:
        load_checkpoint(tmp_path)
    assert "merge_and_unload" in str(caught.value.remedy)


def test_missing_tensor_is_an_error(tmp_path: Path) -> None:
    save_source(source_model("llama"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_checkpoint(tmp_path)


def test_untied_head_under_a_tie_flag_is_an_error(tmp_path: Path) -> None:
    save_source(source_model("llama", tie_word_embeddings=False), tmp_path)
    edit_config(tmp_path, tie_word_embeddings=True)
    with pytest.raises(InputError, match="ties"):
        load_checkpoint(tmp_path)


def test_absent_head_without_a_tie_flag_is_an_error(tmp_path: Path) -> None:
    save_source(source_model("llama", tie_word_embeddings=True), tmp_path)
    edit_config(tmp_path, tie_word_embeddings=False)
    with pytest.raises(InputError, match="lm_head"):
        load_checkpoint(tmp_path)


def test_a_norm_that_two_blocks_read_is_one_after_training_too(tmp_path: Path) -> None:
    ours = load_checkpoint(save_source(source_model("phi"), tmp_path / "theirs"))
    optimizer = torch.optim.SGD(ours.model.parameters(), lr=0.1)
    ours.model(tiny_tokens(), labels=tiny_tokens()).loss.backward()
    optimizer.step()
    write_back(ours, "phi", tmp_path / "back")
    assert_same_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "back"), ours)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": [tiny_layer(), tiny_layer(intermediate_size=40)]},
        {"attention": {"kind": "top_m", "top_m": 4}},
        {"norm": "layer_norm"},
        {"qk_norm": True},
        {"logit_scale": 0.5},
        {"attention_bias": True},
        {"quantization": {"group_size": 16, "formats": {"model.layers.0.mlp.up_proj": "w8"}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_model_that_does_not_fit_the_family_is_not_written(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not fit"):
        write_back(tiny_checkpoint(**changes), "llama", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.fixture(scope="module")
def smollm2() -> Path:
    path = os.environ.get("ROOTS_SMOLLM2")
    if path is None:
        pytest.skip("ROOTS_SMOLLM2 does not name the GGUF file")
    return Path(path)


@pytest.mark.real_model
@pytest.mark.slow
def test_real_gguf_gives_transformers_logits(smollm2: Path, tmp_path: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32, local_files_only=True
    )
    ours = load_checkpoint(smollm2)
    text = "The capital of France is Paris, and the capital of Italy is"
    tokens = torch.tensor([ours.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        logits = ours.model(tokens).logits
        torch.testing.assert_close(logits, theirs(tokens).logits, atol=1e-4, rtol=0)
    assert ours.tokenizer.decode(logits[0, -1].argmax()) == " Rome"
    save_checkpoint(ours, tmp_path / "saved")
    again = load_checkpoint(tmp_path / "saved")
    assert again.tokenizer(text)["input_ids"] == tokens[0].tolist()
    with torch.no_grad():
        torch.testing.assert_close(again.model(tokens).logits, logits, atol=0, rtol=0)
