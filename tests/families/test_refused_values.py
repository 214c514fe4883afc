"""What a configuration says that no layer here can be is refused, in words that name it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from transformers import AutoConfig

from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches

LABELS = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
SHORT = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "rope_theta": 1e4}
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("bart", {"encoder_attention_heads": 5}, "d_model 1024 is not a multiple of encoder_attention_heads 5"),
    (
        "bart",
        {"decoder_start_token_id": -1},
        "it must be the number of a token",
    ),
    ("bert", {"architectures": ["BertForQuestionAnswering"]}, "architectures names BertForQuestionAnswering"),
    (
        "bert",
        {
            "architectures": ["BertForSequenceClassification"],
            "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"},
            "id2label": {"0": "no"},
            "label2id": {"no": 0},
        },
        "activation_fn is 'torch.nn.modules.activation.Tanh'; supported are",
    ),
    ("cohere", {"use_qk_norm": True}, "layer norms of each head's queries and keys are not supported"),
    ("deberta-v2", {"conv_kernel_size": 3}, "conv_kernel_size is above 0"),
    (
        "deberta-v2",
        {"architectures": ["DebertaV2ForSequenceClassification"], "pooler_hidden_act": "selu", **LABELS},
        "pooler_hidden_act is 'selu'; supported are",
    ),
    (
        "deberta-v2",
        {"architectures": ["DebertaV2ForMaskedLM"], "legacy": False},
        "legacy is false, and only the older head of hidden tokens is read",
    ),
    ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2q"]}, "supported are c2p, p2c"),
    ("deberta-v2", {"relative_attention": True, "position_buckets": "x"}, "must be whole numbers"),
    (
        "deberta-v2",
        {"relative_attention": True, "position_buckets": 4000, "pos_att_type": ["p2c"]},
        "max_distance must be above 2001",
    ),
    ("exaone4", {"sliding_window": None, "layer_types": None}, "it must have a sliding_window"),
    ("falcon", {"head_dim": 32}, "head_dim is given"),
    ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}, "which no published model has"),
    ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 3}, "is 3, which no published"),
    ("falcon_h1", {"mamba_n_heads": 7}, "mamba_n_heads 7 times mamba_d_head"),
    (
        "gemma2",
        {"hidden_size": 33, "num_attention_heads": 2},
        "33 is not a multiple of num_attention",
    ),
    ("gemma3_text", {"rope_parameters": [1]}, "rope_parameters is [1]; it must be an object or null"),
    ("gemma3_text", {"rope_parameters": {"near": {}}}, "rope_parameters has the key 'near'"),
    (
        "gemma3_text",
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}},
        "rope_scaling has type 'linear' and rope_type 'yarn'",
    ),
    (
        "gemma4_text",
        {"per_layer_config": {"0": {"num_key_value_heads": 3}}},
        "3 key/value heads do not divide num_attention_heads 8",
    ),
    ("gemma4_text", {"per_layer_config": [1]}, "per_layer_config is [1]; it must hold an object"),
    ("gemma4_text", {"per_layer_config": {"99": {"head_dim": 8}}}, "per_layer_config['99'] names no layer"),
    ("gemma4_text", {"per_layer_config": {"0": {"head_dim": 0}}}, "it must hold whole numbers"),
    ("gemma4_text", {"num_kv_shared_layers": -1}, "must be a number of layers that leaves others"),
    ("gemma4_text", {"num_kv_shared_layers": 29}, "29 leaves no layer of one kind that makes keys"),
    ("gemma4_text", {"hidden_size_per_layer_input": -1}, "hidden_size_per_layer_input is -1"),
    ("gemma4_text", {"vocab_size_per_layer_input": 7}, "vocab_size_per_layer_input is 7, and vocab_size"),
    ("gpt_bigcode", {"multi_query": False}, "multi_query is false"),
    ("gpt_neo", {"attention_types": [[["near"], 12]]}, "must hold lists of global and local and counts"),
    ("granitemoehybrid", {"num_local_experts": 0, "position_embedding_type": "alibi"}, "must be rope, nope"),
    ("granitemoehybrid", {"num_local_experts": 0, "layer_types": ["conv"]}, "attention or mamba for each of"),
    ("lfm2", {"layer_types": ["conv"] * 32}, "no layer has attention"),
    ("lfm2", {"layer_types": ["window"] * 32}, "must name full_attention or conv for each of 32 layers"),
    ("lfm2", {"layer_types": None, "full_attn_idxs": [True]}, "it must be a list of layers' numbers"),
    ("lfm2_moe", {"num_dense_layers": -1}, "it must be 0 or more, and below 32"),
    ("llama", {"head_dim": 7}, "the head size 7 is odd"),
    ("m2m_100", {"pad_token_id": 0}, "pad_token_id must be 1, after which positions begin"),
    ("marian", {"share_encoder_decoder_embeddings": False}, "the stacks must share one vocabulary"),
    ("marian", {"decoder_vocab_size": 7}, "decoder_vocab_size is 7"),
    ("ministral3", {"rope_parameters": [1]}, "it must be an object or null"),
    (
        "ministral3",
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
        "by which queries are",
    ),
    (
        "modernbert",
        {"architectures": ["ModernBertForSequenceClassification"], "classifier_pooling": "max", **LABELS},
        "classifier_pooling is 'max'; it must be one of cls, mean",
    ),
    ("opt", {"word_embed_proj_dim": 5}, "word_embed_proj_dim is not hidden_size 768"),
    ("phi3", {"rope_scaling": [1]}, "rope_scaling is [1]; it must be an object or null"),
    ("phi3", {"rope_scaling": SHORT, "rope_parameters": {"rope_type": "longrope"}}, "say different things"),
    (
        "phi3",
        {"rope_theta": -1.0, "rope_parameters": None},
        "it must be a number above 0",
    ),
    ("phi3", {"partial_rotary_factor": 1.5, "rope_parameters": None}, "it must be above 0 and at most 1"),
    ("phi3", {"rope_parameters": SHORT, "original_max_position_embeddings": 2048}, "must hold 48 numbers"),
    (
        "phi3",
        {"rope_parameters": {**SHORT, "short_factor": "x"}, "original_max_position_embeddings": 2048},
        "short_factor is 'x'; it must be a list of numbers above 0",
    ),
    (
        "phi3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "beta_fast": 2}},
        "rope_parameters has the key 'beta_fast'",
    ),
    ("qwen2_moe", {"use_sliding_window": True, "sliding_window": "x"}, "sliding_window is 'x', and"),
    ("qwen3_5_text", {"layer_types": ["linear_attention"] * 32}, "no layer has attention"),
    ("qwen3_5_text", {"layer_types": ["conv"] * 32}, "must name full_attention or linear_attention for each"),
    ("roberta", {"pad_token_id": 0}, "pad_token_id must be 1, after which positions begin"),
    ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers must hold 1 or 0 for each of 36 layers"),
    ("stablelm", {"partial_rotary_factor": 1.5, "rope_parameters": None}, "it must be above 0 and at most 1"),
    ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj is 'gated-mish'"),
]


@pytest.mark.parametrize(("name", "changes", "words"), CASES, ids=[f"{n}-{'-'.join(c)}" for n, c, _ in CASES])
def test_what_no_layer_can_be_is_refused_in_words(name: str, changes: dict[str, Any], words: str) -> None:
    family = FAMILIES[name]
    config = {**AutoConfig.for_model(name).to_dict(), "architectures": [family.architecture], **changes}
    with pytest.raises(InputError, match=re.escape(words)):
        family.read_config(Switches(config, "config.json"))
