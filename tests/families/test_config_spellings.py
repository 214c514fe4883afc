"""A config.json is read as transformers reads it, or refused by key: every spelling, null and absence."""

from __future__ import annotations

import json
from enum import Enum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError, SourceWarning
from roots_compress.families.neutral import NEUTRAL_KEYS
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from tests.families.sources import (
    DECODERS,
    FIELDS,
    SHAPES,
    each_family,
    save_source,
    source_config,
    source_model,
)
from tests.tiny import tiny_tokens


class Mark(Enum):
    """What a table of settings says of a key besides its value."""

    ABSENT = "absent"


ABSENT = Mark.ABSENT
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}
STATED = {"hunyuan_v1_dense", "hunyuan_v1_moe", "ministral", "helium"}
"""Families whose class has no default of the heads' size, or none that suits tiny models."""
OWN_KEYS = {"deepseek_v3", "glm4_moe_lite", "minicpm3"}
"""Families each of whose heads has keys of its own, and whose class has a default of other heads."""
Changes = dict[str, Any]


@cache
def saved(family: str) -> dict[str, bytes]:
    """Return the files of a saved model, by name."""
    with TemporaryDirectory() as folder:
        save_source(source_model(family), Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def edited(folder: Path, family: str, changes: Changes) -> Path:
    """Save a model, and change its config.json."""
    folder.mkdir(exist_ok=True)
    for name, content in saved(family).items():
        (folder / name).write_bytes(content)
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ABSENT}))
    return folder


def assert_read_alike(folder: Path) -> None:
    """Compare logits over more tokens than any window or original context here."""
    tokens = tiny_tokens(2, 60)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        ours = load_checkpoint(folder).model(tokens).logits
        torch.testing.assert_close(ours, theirs(tokens).logits, atol=1e-4, rtol=0)


def refusal(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert "config.json" in str(caught.value.where)
    assert caught.value.remedy
    return caught.value


ROPES: dict[str, Changes] = {
    "nothing": {"rope_parameters": ABSENT},
    "both null": {"rope_parameters": None, "rope_scaling": None},
    "theta at the top": {"rope_parameters": ABSENT, "rope_theta": 300.0},
    "theta at the top and within": {"rope_parameters": {"rope_theta": 500.0}, "rope_theta": 300.0},
    "theta beside an empty object": {"rope_parameters": {}, "rope_theta": 300.0},
    "old scaling, old theta": {"rope_parameters": ABSENT, "rope_scaling": LINEAR, "rope_theta": 300.0},
    "old scaling, no theta": {"rope_parameters": ABSENT, "rope_scaling": LINEAR},
    "old scaling with its theta": {"rope_parameters": None, "rope_scaling": {**LINEAR, "rope_theta": 300.0}},
    "type": {"rope_parameters": ABSENT, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "type and rope_type": {"rope_parameters": {"type": "yarn", "rope_type": "linear", "factor": 4.0}},
    "type in the new object": {"rope_parameters": {"type": "linear", "factor": 4.0}},
    "the same twice": {"rope_parameters": LINEAR, "rope_scaling": {"type": "linear", "factor": 4}},
    "the same twice, theta at the top": {
        "rope_parameters": {**LLAMA3, "rope_theta": 300.0}, "rope_scaling": LLAMA3, "rope_theta": 300.0,
    },
    "the empty one and the other": {"rope_parameters": LINEAR, "rope_scaling": {}},
    "original at the top": {"rope_parameters": YARN, "original_max_position_embeddings": 16},
    "original twice alike": {"rope_parameters": LLAMA3, "original_max_position_embeddings": 16},
    "original without a scaling": {"original_max_position_embeddings": 16},
    "original beside linear": {"rope_parameters": LINEAR, "original_max_position_embeddings": 16},
    "no original": {"rope_parameters": YARN},
    "factor from the lengths": {
        "rope_parameters": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16}
    },
    "partial of 1": {"rope_parameters": LINEAR, "partial_rotary_factor": 1.0},
    "partial null": {"partial_rotary_factor": None},
    "partial of 1 within": {"rope_parameters": {**LINEAR, "partial_rotary_factor": 1}},
}  # fmt: skip


NEEDED = ["theta at the top", "old scaling with its theta", "original at the top", "partial null"]
"""Which show that a family hands over each key; how they are read is the same for all of them."""


@pytest.mark.parametrize(
    ("family", "case"),
    [
        *(("llama", case) for case in ROPES),
        *((family, case) for family in ("mistral", "qwen2", "qwen3", "gemma") for case in NEEDED),
    ],
)
def test_positions_are_read_as_transformers_reads_them(family: str, case: str, tmp_path: Path) -> None:
    assert_read_alike(edited(tmp_path, family, ROPES[case]))


ORIGINAL = "original_max_position_embeddings"
TWO = ("rope_scaling", "rope_parameters")
BAD_ROPES: list[tuple[Changes, tuple[str, ...]]] = [
    ({"rope_parameters": {**LINEAR, "factor": 2.0}, "rope_scaling": LINEAR}, TWO),
    ({"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": LINEAR}, TWO),
    ({"rope_parameters": {**LLAMA3, "rope_theta": 5e5}, "rope_scaling": LLAMA3}, TWO),
    ({"rope_parameters": YARN, "rope_scaling": LLAMA3}, TWO),
    ({"rope_parameters": ABSENT, "rope_theta": None}, ("rope_theta", "null")),
    ({"rope_parameters": {"rope_theta": None}}, ("rope_parameters.rope_theta", "null")),
    ({"rope_parameters": {"rope_theta": "10000"}}, ("rope_parameters.rope_theta",)),
    ({"rope_parameters": {"rope_type": None}}, ("rope_type",)),
    ({"rope_parameters": {"rope_type": "linear"}}, ("factor",)),
    ({"rope_parameters": {**LINEAR, "factor": None}}, ("rope_parameters.factor",)),
    ({"rope_parameters": {**LLAMA3, "low_freq_factor": None}}, ("rope_parameters.low_freq_factor",)),
    ({"rope_parameters": {**LINEAR, "partial_rotary_factor": None}}, ("partial_rotary_factor",)),
    ({"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}, ("partial_rotary_factor",)),
    ({"partial_rotary_factor": 0.5}, ("partial_rotary_factor",)),
    ({"rope_parameters": {**YARN, ORIGINAL: 32}, ORIGINAL: 16},
     (f"{ORIGINAL} is 16", "32")),
    ({"rope_parameters": YARN, ORIGINAL: None}, (ORIGINAL,)),
    ({"rope_parameters": {**YARN, ORIGINAL: None}}, (ORIGINAL,)),
    ({"rope_parameters": [LINEAR]}, ("rope_parameters",)),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": ABSENT}, ("dynamic",)),
    ({"rope_parameters": {"full_attention": LINEAR}}, ("full_attention",)),
    ({"rope_parameters": {**LINEAR, "mrope_section": [1, 1, 2]}}, ("mrope_section",)),
]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(("changes", "words"), BAD_ROPES, ids=str)
def test_positions_beyond_us_are_refused_by_key(
    family: str, changes: Changes, words: tuple[str, ...], tmp_path: Path
) -> None:
    error = refusal(edited(tmp_path, family, changes))
    assert all(word in error.message for word in words)


FULL, SLIDING = ["full_attention"] * 2, ["sliding_attention"] * 2
LET_THROUGH: list[tuple[str, Changes]] = [
    ("qwen2", {"use_mrope": False}),
    ("llama", {"layer_types": FULL}),
    ("gemma", {"layer_types": FULL}),
    ("gpt2", {"layer_types": FULL}),
    ("mistral", {"layer_types": FULL}),
    ("mistral", {"layer_types": FULL, "sliding_window": 5}),
    ("mistral", {"layer_types": ["attention"] * 2, "sliding_window": 5}),
    ("mistral", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 5}),
    ("mistral", {"layer_types": SLIDING, "sliding_window": 5}),
    ("mistral", {"layer_types": None, "sliding_window": 5}),
    ("mistral", {"sliding_window": 5, "use_sliding_window": False}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": ABSENT}),
    ("mistral", {"attention_bias": False, "mlp_bias": False}),
    ("mistral", {"attention_bias": None}),
    ("qwen2", {"attention_bias": True}),
    ("qwen2", {"mlp_bias": False, "qkv_bias": True}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "layer_types": None}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": None, "layer_types": ABSENT}),
    ("qwen2", {"use_sliding_window": False, "sliding_window": 5, "layer_types": ABSENT}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "layer_types": SLIDING}),
    ("qwen3", {"use_qk_norm": True}),
    ("qwen3", {"layer_types": ABSENT, "use_sliding_window": ABSENT, "sliding_window": ABSENT}),
    ("llama", {"use_qk_norm": False, "qk_layernorm": False}),
    ("llama", {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28}),
    ("gemma", {"use_sliding_window": False}),
    ("llama", {"model_max_length": 4096, "max_sequence_length": 2048, "max_seq_length": 1024}),
    ("llama", {"_attn_implementation": "sdpa", "attn_implementation": "eager"}),
    ("llama", {"num_experts": 0, "num_local_experts": None}),
    ("llama", {"some_new_switch": None}),
    ("llama", {"torch_dtype": "bfloat16", "dtype": "float16"}),
    ("llama", {"num_key_value_heads": 2, "head_dim": None}),
    ("llama", {"is_causal": True, "no_bias": True}),
    ("llama", {"hidden_activation": "silu"}),
    ("gemma", {"hidden_activation": None}),
    ("gemma", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}),
    ("gemma", {"hidden_act": ABSENT}),
    *((each, {"hidden_activation": "gelu"}) for each in ("gemma2", "gemma3_text", "gemma4_text")),
    ("gemma", {"use_bidirectional_attention": None}),
    ("gpt2", {"activation_function": "gelu_fast"}),
    ("gpt2", {"activation_function": ABSENT, "layer_norm_epsilon": ABSENT}),
    ("gpt2", {"n_inner": None, "n_ctx": 77}),
    ("gpt2", {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}),
    ("gpt2", {"n_embd": ABSENT, "hidden_size": 32, "n_layer": ABSENT, "num_hidden_layers": 2}),
    ("gpt2", {"n_positions": ABSENT, "max_position_embeddings": 64}),
    ("llama", {"rms_norm_eps": ABSENT, "hidden_act": ABSENT, "attention_bias": ABSENT, "mlp_bias": ABSENT}),
    ("llama", {"max_position_embeddings": ABSENT}),
    ("gemma", {"tie_word_embeddings": ABSENT}),
    ("gemma2", {"cache_implementation": "hybrid", "sliding_window": 5, "sliding_window_size": 5}),
    ("gpt2", {"n_special": 0, "predict_special_tokens": True}),
    ("gpt_oss", {"rope_parameters": {}}),
    ("phi3", {"interpolate_factor": 1, "full_attn_mod": 1, "lm_head_bias": False}),
    ("smollm3", {"max_window_layers": 28, "use_sliding_window": False}),
    ("dots1", {"max_window_layers": None}),
    ("glm4_moe", {"num_local_experts": 6, "n_routed_experts": ABSENT}),
    ("ernie4_5_moe", {"moe_capacity": [64, 64, 64], "moe_gate": "topk", "moe_layer_end_index": 1}),
    ("hunyuan_v1_moe", {"num_experts_per_tok": 2, "moe_topk": ABSENT, "use_mixed_mlp_moe": True}),
    ("deepseek_v2", {"scoring_func": "softmax", "aux_loss_alpha": 0.001, "n_group": 1, "topk_group": 1}),
    ("deepseek_v3", {"topk_method": "noaux_tc", "ep_size": 1, "moe_layer_freq": 1}),
    ("glm4_moe_lite", {"first_k_dense_replace": 1, "mlp_layer_types": ABSENT}),
    ("minicpm3", {"v_head_dim": None, "dim_model_base": None, "scale_depth": None}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes"), LET_THROUGH, ids=str)
def test_keys_are_read_as_transformers_reads_them(family: str, changes: Changes, tmp_path: Path) -> None:
    assert_read_alike(edited(tmp_path, family, changes))


def test_code_that_is_not_there_is_no_code(tmp_path: Path) -> None:
    nothing: list[dict[str, str] | None] = [None, {}]
    for empty in nothing:
        load_checkpoint(edited(tmp_path / str(empty), "llama", {"auto_map": empty}))


def own_code(family: str, stem: str) -> dict[str, str]:
    """Return the table of a checkpoint that carries the code of a class that transformers has too."""
    return {
        "AutoConfig": f"configuration_{family}.{stem}Config",
        "AutoModelForCausalLM": f"modeling_{family}.{stem}ForCausalLM",
    }


@pytest.mark.parametrize(("family", "stem"), [("phi3", "Phi3"), ("deepseek_v3", "DeepseekV3")])
def test_code_of_a_class_that_transformers_has_is_not_run(family: str, stem: str, tmp_path: Path) -> None:
    folder = edited(tmp_path / "model", family, {"auto_map": own_code(family, stem)})
    for file in ("configuration", "modeling"):
        (folder / f"{file}_{family}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.warns(SourceWarning, match="its Python code is not run"):
        loaded = load_checkpoint(folder)
    plain = load_checkpoint(edited(tmp_path / "plain", family, {}))
    assert loaded.model.config.spec == plain.model.config.spec
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "beside"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3SmallForCausalLM"}}, None),
        ({"auto_map": own_code("phi3", "Phi3") | {"AutoModel": "modeling_phi3.BiPhi3Model"}}, None),
        ({"auto_map": own_code("phi3", "Phi3"), "architectures": ["Phi3ForRewardModel"]}, None),
        ({"auto_map": own_code("phi3", "Phi3") | {"AutoModel": None}}, None),
        ({"auto_map": own_code("phi3", "Phi3")}, "modules.json"),
    ],
    ids=["other names", "one other name", "other architecture", "no name", "sentence encoder"],
)
def test_code_of_any_other_class_is_refused(changes: Changes, beside: str | None, tmp_path: Path) -> None:
    folder = edited(tmp_path, "phi3", changes)
    if beside is not None:
        (folder / beside).write_text("[]")
    assert "names Python code to run" in refusal(folder).message


REFUSED: list[tuple[str, Changes]] = [
    ("qwen2", {"use_mrope": True}),
    ("llama", {"layer_types": SLIDING}),
    ("llama", {"layer_types": ["full_attention"] * 3}),
    ("llama", {"sliding_window": 5}),
    ("llama", {"use_sliding_window": True}),
    ("llama", {"is_causal": False}),
    ("gpt2", {"is_causal": None}),
    ("llama", {"use_qk_norm": True}),
    ("llama", {"hidden_activation": "gelu"}),
    ("llama", {"some_new_switch": False}),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}),
    ("llama", {"num_attention_heads": 3, "num_key_value_heads": 3}),
    ("mistral", {"attention_bias": True}),
    ("mistral", {"layer_types": SLIDING, "sliding_window": None}),
    ("mistral", {"num_key_value_heads": None}),
    ("gemma", {"num_key_value_heads": None}),
    ("gemma", {"head_dim": None}),
    ("gemma", {"hidden_activation": "relu"}),
    ("qwen2", {"attention_bias": False}),
    ("qwen2", {"head_dim": None}),
    ("qwen2", {"max_window_layers": None}),
    ("qwen2", {"use_sliding_window": None}),
    ("qwen2", {"layer_types": SLIDING, "sliding_window": 5}),
    ("qwen3", {"head_dim": None}),
    ("qwen3", {"use_qk_norm": False}),
    ("qwen2_moe", {"num_local_experts": 6, "num_experts": ABSENT}),
    ("qwen3_next", {"num_local_experts": 6, "num_experts": ABSENT}),
    ("gemma2", {"sliding_window_size": 7, "sliding_window": 5}),
    ("gpt2", {"n_embd": None}),
    ("gpt2", {"hidden_size": 64}),
    ("gpt2", {"num_attention_heads": 2}),
    ("gpt2", {"hidden_size": None}),
    ("gpt2", {"add_cross_attention": None}),
    ("gpt2", {"scale_attn_weights": None}),
    ("glm4_moe", {"first_k_dense_replace": 2}),
    ("glm4_moe", {"n_group": 4}),
    ("hunyuan_v1_moe", {"moe_topk": [2]}),
    ("deepseek_v2", {"norm_topk_prob": True}),
    ("deepseek_v2", {"topk_method": "noaux_tc"}),
    ("deepseek_v3", {"rope_interleave": False}),
    ("deepseek_v3", {"scoring_func": "softmax"}),
    ("deepseek_v3", {"v_head_dim": 17}),
    ("deepseek_v3", {"num_key_value_heads": 2}),
    ("glm4_moe_lite", {"mlp_layer_types": ["dense", "dense"]}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes"), REFUSED, ids=str)
def test_what_cannot_be_read_alike_is_refused_by_key(family: str, changes: Changes, tmp_path: Path) -> None:
    refused = refusal(edited(tmp_path, family, changes))
    assert next(iter(changes)) in refused.message
    assert ("quantized" in str(refused)) == ("quantization_config" in changes)


NULLS = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "max_window_layers",
    "sliding_window", "n_embd", "n_layer", "n_head", "n_positions", "n_inner", "activation_function",
    "layer_norm_epsilon", "scale_attn_weights",
]  # fmt: skip


@pytest.mark.parametrize("family", each_family())
def test_null_means_what_the_familys_class_makes_of_it(family: str, tmp_path: Path) -> None:
    """Where transformers' class takes null, so do we, for the same widths; where it refuses, so do we."""
    config = {**json.loads(source_config(family).to_json_string(use_diff=False)), "model_type": family}
    for key in NULLS:
        changed = {**config, key: None}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        try:
            theirs = AutoConfig.from_pretrained(tmp_path)
            with torch.no_grad():
                AutoModelForCausalLM.from_config(theirs)(tiny_tokens())
        except Exception as error:  # Strict fields, and arithmetic with None further on.
            theirs = error
        try:
            ours: Any = FAMILIES[family].read_config(Switches(changed, "config.json"))
        except InputError as error:
            ours = error
        assert isinstance(theirs, Exception) == isinstance(ours, InputError), (key, theirs, ours)
        if not isinstance(ours, InputError):
            theirs.allow_global_per_layer_attribute_access = True  # Where layers differ, the first is usual.
            attention, size = ours.attentions()[0], theirs.hidden_size // theirs.num_attention_heads
            ours_size = attention.head_dim if attention.latent is None else attention.turned
            assert ours_size == (getattr(theirs, "head_dim", None) or size), key
            shared = getattr(theirs, "multi_query", False)
            groups = (
                1 if shared else getattr(theirs, "num_key_value_heads", None) or theirs.num_attention_heads
            )
            assert attention.kv_heads == groups, key


@pytest.mark.parametrize("family", DECODERS)
def test_absence_means_the_default_of_the_familys_class(family: str) -> None:
    """Of keys that say nothing of a tensor's shape."""
    shapes = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "n_embd", "n_layer", "n_head", "num_key_value_heads"}  # fmt: skip
    shapes |= FIELDS.get(family, {}).keys() | SHAPES.get(family, {}).keys() - {"n_positions"}
    shapes |= {"head_dim"} if family in STATED else set()
    config = json.loads(source_config(family).to_json_string(use_diff=False))
    bare = {key: value for key, value in config.items() if key in shapes}
    whole = json.loads(type(source_config(family))(**bare).to_json_string(use_diff=False))
    fields = [FAMILIES[family].read_config(Switches(each, "config.json")) for each in (bare, whole)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("family", [each for each in DECODERS if each not in SHAPES])
def test_key_value_heads_that_are_absent_are_the_default_of_the_familys_class(family: str) -> None:
    wide = {"num_attention_heads": 160, "hidden_size": 2560}
    wide |= {} if family in OWN_KEYS else {"head_dim": 16}
    config = json.loads(source_config(family, **wide).to_json_string(use_diff=False))
    del config["num_key_value_heads"]
    default = getattr(type(source_config(family)), "num_key_value_heads", None)
    switches = Switches(config, "config.json")
    if family in OWN_KEYS and default:
        with pytest.raises(InputError, match=f"num_key_value_heads.* {default}"):
            FAMILIES[family].read_config(switches)
        return
    assert FAMILIES[family].read_config(switches).attentions()[0].kv_heads == (default or 160)


def test_settings_of_generation_in_a_configuration_say_nothing() -> None:
    assert set(GenerationConfig._get_default_generation_params()) <= NEUTRAL_KEYS


def test_a_llama_of_heads_that_transformers_refuses_is_not_written(tmp_path: Path) -> None:
    """No Llama can be loaded by transformers whose hidden size is not a multiple of its heads."""
    theirs = source_model("qwen2", num_attention_heads=3, num_key_value_heads=3)
    ours = load_checkpoint(save_source(theirs, tmp_path / "theirs"))
    write_back(ours, "qwen2", tmp_path / "qwen2")
    AutoModelForCausalLM.from_pretrained(tmp_path / "qwen2")
    with pytest.raises(InputError, match="does not fit"):
        write_back(ours, "llama", tmp_path / "llama")


ADAPTER_FILES = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.npz",
    "adapters.safetensors",
]


@pytest.mark.parametrize("name", ADAPTER_FILES)
@pytest.mark.parametrize("kind", ["alone", "llama", "roots"])
def test_an_adapter_is_refused_by_name(name: str, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    if kind != "alone":
        source = save_source(source_model("llama"), tmp_path / "llama")
        folder = source
    if kind == "roots":
        folder = tmp_path / "roots"
        save_checkpoint(load_checkpoint(source), folder)
    (folder / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert name in str(caught.value.where)
    assert "adapter" in caught.value.message
    assert "merge_and_unload" in str(caught.value.remedy)


@pytest.mark.parametrize("spelt", ["Infinity", '{"__float__": "Infinity"}', "1e999"])
@pytest.mark.parametrize("family", ["falcon_h1", "granitemoehybrid"])
def test_a_bound_that_is_infinite_is_none_in_every_spelling(family: str, spelt: str, tmp_path: Path) -> None:
    """The first is of transformers before version 5, the second of later ones."""
    for name, content in saved(family).items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "config.json"
    config = {**json.loads(path.read_text()), "time_step_limit": "SPELT"}
    path.write_text(json.dumps(config).replace('"SPELT"', f"[0.0, {spelt}]"))
    spec = inspect_source(tmp_path).spec
    path.write_text(json.dumps({**config, "time_step_limit": [0.0, {"__float__": "Infinity"}]}))
    assert spec == inspect_source(tmp_path).spec
