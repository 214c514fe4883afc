"""Shrunken random models of every family, written as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from roots_compress.families.registry import FAMILIES
from tests.tiny import VOCAB_SIZE, tiny_tokenizer

CAUSAL = ("ForCausalLM", "LMHeadModel")
"""The ends of the names of transformers' classes that predict the next token."""
DECODERS = [name for name, family in FAMILIES.items() if family.architecture.endswith(CAUSAL)]
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
QUICK = DECODERS[: DECODERS.index("olmo3") + 1]
"""Families that have nearly all switches between them. Of the others the tests of one variant are quick."""


def each_family() -> list[Any]:
    """Return every decoder family as a parameter of a test, slow but for `QUICK`."""
    return [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in DECODERS]


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 8},
    "gpt_bigcode": GPT,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "falcon": {
        "hidden_size": 32,
        "ffn_hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
}
"""Widths of families that name some of them otherwise."""
FIELDS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 9},
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    },
    "gemma4_text": {
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    },
    "lfm2_moe": {
        "layer_types": ["conv", "full_attention"],
        "num_dense_layers": 0,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
    },
    "lfm2": {"full_attn_idxs": [1], "block_auto_adjust_ff_dim": False},
    "granitemoehybrid": {
        "shared_intermediate_size": 48,
        "num_local_experts": 0,
        "layer_types": ["full_attention"] * 2,
        "position_embedding_type": "rope",
        "mamba_n_heads": 4,
    },
}
_SHARED = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
FIELDS |= {
    "qwen2_moe": _SHARED,
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_state": 6},
    "qwen3_next": {**FIELDS["qwen3_5_text"], **_SHARED},
    "qwen3_5_moe_text": {**FIELDS["qwen3_5_text"], **_SHARED},
}
_ROUTED = {
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
}
_LATENT = {
    **_ROUTED,
    "num_key_value_heads": 4,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "kv_lora_rank": 12,
    "q_lora_rank": 10,
    "head_dim": 8,
}
FIELDS |= {
    "glm4_moe": _ROUTED,
    **dict.fromkeys(("deepseek_v2", "glm4_moe_lite"), _LATENT),
    "dots1": _ROUTED,
    "deepseek_v3": {**_LATENT, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "minicpm3": {key: value for key, value in _LATENT.items() if key not in _ROUTED},
    "ernie4_5_moe": {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 24},
    "granitemoeshared": {"num_local_experts": 6, "num_experts_per_tok": 2, "shared_intermediate_size": 40},
    "hunyuan_v1_moe": {"num_experts": 6, "moe_topk": 2},
}
"""What a family's tiny model needs besides the widths that all have."""
SEQ2SEQ_FIELDS: dict[str, dict[str, Any]] = {
    "t5": {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "bart": {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
        "forced_eos_token_id": None,
    },
}
SEQ2SEQ_FIELDS |= dict.fromkeys(("mbart", "pegasus", "marian"), SEQ2SEQ_FIELDS["bart"])
SEQ2SEQ_FIELDS |= {"mt5": SEQ2SEQ_FIELDS["t5"], "m2m_100": {**SEQ2SEQ_FIELDS["bart"], "pad_token_id": 1}}


def source_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """Return a family's config of two layers and width 32."""
    widths = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    fields = SHAPES.get(family, widths) | FIELDS.get(family, {})
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return AutoConfig.for_model(family, **{**fields, "vocab_size": VOCAB_SIZE, **ids, **overrides})


def source_model(family: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Return a family's model with random weights everywhere, norms and biases too."""
    torch.manual_seed(seed)  # The class draws weights, which those drawn below are added to.
    model: PreTrainedModel = AutoModelForCausalLM.from_config(source_config(family, **overrides)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.ndim == 1 or "wte" in name or "embed" in name else 32**-0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
        for number, scalar in enumerate(each for name, each in model.named_buffers() if "scalar" in name):
            scalar.fill_(0.7 + 0.2 * number)
        biases = ("expert_bias", "e_score_correction_bias")
        for bias in (each for name, each in model.named_buffers() if name.endswith(biases)):
            bias.add_(torch.randn(bias.shape, generator=generator) * 0.2)
    return model


def encoder(family: str, changes: dict[str, Any]) -> PreTrainedModel:
    """Return an encoder family's model of a variant, with random weights everywhere."""
    fields = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "hidden_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 2,
        **changes,
    }
    architecture = fields.pop("architectures")[0]
    left_out = "intermediate_size" if family == "distilbert" else "hidden_dim"
    del fields[left_out]
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, architecture)(AutoConfig.for_model(family, **fields))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.eval()
    return model


def seq2seq(family: str, changes: dict[str, Any]) -> PreTrainedModel:
    """Return an encoder-decoder family's model of a variant, with random weights everywhere."""
    fields: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "pad_token_id": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    fields |= {"decoder_start_token_id": 2, "d_model": 32, **SEQ2SEQ_FIELDS[family], **changes}
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **fields))
    generator = torch.Generator().manual_seed(0)
    if changes.get("tie_word_embeddings") is False:
        # transformers ties what a configuration alone describes, and not what a file holds twice.
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros(VOCAB_SIZE, 32))
        model.config.tie_word_embeddings = False
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # Tables of sines are as they are.
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("bias"):
                buffer.add_(torch.randn(buffer.shape, generator=generator) * 0.2)
    model.eval()
    return model


def save_source(model: PreTrainedModel, directory: Path, **save: Any) -> Path:
    """Write a model and the tiny tokenizer as transformers does."""
    model.save_pretrained(directory, **save)
    tiny_tokenizer().save_pretrained(directory)
    return directory
