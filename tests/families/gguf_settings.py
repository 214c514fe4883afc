"""What the metadata of GGUF files say of tiny models of transformers, as llama.cpp's converter says it."""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedModel

from tests.families.gguf_tensors import plain_config

ATTENDING = ("attention", "full_attention")
LAYER_NORM_EPS = {
    "starcoder2": "norm_epsilon",
    "nemotron": "norm_eps",
    "falcon": "layer_norm_epsilon",
    **dict.fromkeys(("stablelm", "cohere", "cohere2", "phi", "gpt_neox"), "layer_norm_eps"),
}
"""Keys of the epsilon of families with layer norms."""


def gguf_settings(model: PreTrainedModel) -> dict[str, Any]:
    """Return what the metadata say of a model without scaled positions."""
    config = plain_config(model)
    settings = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
    }
    if config.model_type in ("gpt2", "gpt_bigcode"):
        inner = config.n_inner or 4 * config.n_embd
        return {
            **settings,
            "feed_forward_length": inner,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
            **({"attention.head_count_kv": 1} if config.model_type == "gpt_bigcode" else {}),
        }
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    said = {
        **settings,
        "feed_forward_length": getattr(config, "ffn_hidden_size", None)
        or getattr(config, "intermediate_size", None),
        "vocab_size": config.vocab_size,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        **_epsilon(config),
        "rope.dimension_count": int(head_dim * (rope.get("partial_rotary_factor") or 1)),
        "rope.freq_base": float(rope["rope_theta"]),
        **_settings_of(config),
    }
    return {key: value for key, value in said.items() if value is not None}


def _epsilon(config: Any) -> dict[str, float]:
    """Return the epsilon of the norms."""
    if config.model_type in LAYER_NORM_EPS:
        return {"attention.layer_norm_epsilon": getattr(config, LAYER_NORM_EPS[config.model_type])}
    eps = config.norm_eps if config.model_type.startswith("lfm2") else config.rms_norm_eps
    return {"attention.layer_norm_rms_epsilon": eps}


def _settings_of(config: Any) -> dict[str, Any]:
    """Return what only one architecture has, or says otherwise."""
    types = getattr(config, "layer_types", None) or []
    window = {"attention.sliding_window": getattr(config, "sliding_window", None)}
    slides = {**window, "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in types]}
    kv_heads = getattr(config, "num_key_value_heads", 0)
    experts = {
        "expert_count": getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None),
        "expert_used_count": getattr(config, "num_experts_per_tok", None),
    }
    channels = {"expert_feed_forward_length": getattr(config, "moe_intermediate_size", None)}
    match config.model_type:
        case "gemma2":
            return {
                **window,
                "attn_logit_softcapping": config.attn_logit_softcapping,
                "final_logit_softcapping": config.final_logit_softcapping,
            }
        case "gemma3_text":
            return window
        case "phi3":
            return {"attention.sliding_window": config.sliding_window or 0, **_longrope(config)}
        case "lfm2" | "lfm2_moe":
            groups = [kv_heads * (kind != "conv") for kind in types]
            found = {"shortconv.l_cache": config.conv_L_cache, "attention.head_count_kv": groups}
            if config.model_type == "lfm2":
                return found
            dense = {"leading_dense_block_count": config.num_dense_layers, "expert_gating_func": 2}
            scale = {"expert_weights_scale": config.routed_scaling_factor}
            return {**found, **experts, **channels, **dense, **scale}
        case "qwen3_moe":
            return {**experts, **channels}
        case "mixtral" | "olmoe":
            return experts
        case "gpt_oss":
            return {
                **experts,
                **slides,
                "expert_feed_forward_length": config.intermediate_size,
                **_yarn(config.rope_parameters),
            }
        case "granite" | "granitemoe":
            return {**_granite(config), **(experts if config.model_type == "granitemoe" else {})}
        case "granitemoeshared":
            return {**_granite(config), **experts, **_shared(config)}
        case "granitemoehybrid":
            width = config.intermediate_size if config.num_local_experts else config.shared_intermediate_size
            return {
                **_granite(config),
                **({**experts, **_shared(config)} if config.num_local_experts else {}),
                "feed_forward_length": width,
                "attention.head_count_kv": [kv_heads * (kind in ATTENDING) for kind in types],
                "rope.scaling.finetuned": config.position_embedding_type == "rope",
                **_mamba2(config),
            }
        case "falcon_h1":
            return _mamba2(config)
        case "ernie4_5" if config.rope_parameters["rope_type"] == "linear":
            return {"rope.scaling.type": "linear", "rope.scaling.factor": config.rope_parameters["factor"]}
        case "olmo3":
            return {**slides, **_yarn(config.rope_parameters["full_attention"])}
        case "cohere":
            return {"logit_scale": config.logit_scale}
        case "cohere2":
            return {**slides, "logit_scale": config.logit_scale}
        case "exaone4":
            return slides if config.sliding_window else {}
        case "ministral3":
            rope = config.rope_parameters
            grows = {"attention.temperature_scale": rope["llama_4_scaling_beta"]}
            return {**_yarn(rope), "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"], **grows}
        case "gpt_neox":
            return {"use_parallel_residual": config.use_parallel_residual}
        case "falcon":
            grouped = config.new_decoder_architecture or not config.multi_query
            return {"attention.head_count_kv": config.num_kv_heads if grouped else 1}
        case "qwen2_moe":
            return {**experts, **channels, **_shared(config)}
        case "qwen3_5_text" | "qwen3_5_moe_text" | "qwen3_next":
            moe = {} if config.model_type == "qwen3_5_text" else {**experts, **channels, **_shared(config)}
            return {
                **moe,
                "attention.recurrent_layers": [kind == "linear_attention" for kind in types],
                "rope.dimension_sections": [11, 11, 10, 0],
                "ssm.conv_kernel": config.linear_conv_kernel_dim,
                "ssm.state_size": config.linear_key_head_dim,
                "ssm.group_count": config.linear_num_key_heads,
                "ssm.time_step_rank": config.linear_num_value_heads,
                "ssm.inner_size": config.linear_num_value_heads * config.linear_value_head_dim,
            }
        case "glm4_moe" | "deepseek_v2" | "deepseek_v3":
            latent = {} if config.model_type == "glm4_moe" else _latent(config)
            return {**experts, **channels, **_routed(config), **latent}
        case "gemma4_text":
            return {**slides, **experts, **channels, **_gemma4(config)}
    return {}


def _shared(config: Any) -> dict[str, Any]:
    width = getattr(config, "shared_intermediate_size", None) or config.shared_expert_intermediate_size
    return {"expert_shared_feed_forward_length": width}


def _routed(config: Any) -> dict[str, Any]:
    softmax = config.model_type == "deepseek_v2"
    return {
        "expert_count": config.n_routed_experts,
        "expert_shared_count": config.n_shared_experts,
        "expert_weights_scale": float(config.routed_scaling_factor),
        "expert_weights_norm": bool(config.norm_topk_prob),
        "leading_dense_block_count": config.first_k_dense_replace,
        "expert_group_count": config.n_group,
        "expert_group_used_count": config.topk_group,
        "expert_gating_func": None if softmax else 2,
    }


def _latent(config: Any) -> dict[str, Any]:
    multiplier = config.rope_parameters.get("mscale_all_dim")
    return {
        **_yarn(config.rope_parameters),
        "rope.scaling.yarn_log_multiplier": multiplier and 0.1 * multiplier,
        "rope.dimension_count": config.qk_rope_head_dim,
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": config.q_lora_rank,
        "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "attention.value_length_mla": config.v_head_dim,
    }


def _longrope(config: Any) -> dict[str, Any]:
    if "short_factor" not in config.rope_parameters:
        return {}
    original, context = config.original_max_position_embeddings, config.max_position_embeddings
    factor = math.sqrt(1 + math.log(context / original) / math.log(original))
    return {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": factor if context > original else 1.0,
    }


def _yarn(rope: Any) -> dict[str, Any]:
    if rope["rope_type"] != "yarn":
        return {}
    names = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": rope["factor"],
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        **{f"rope.scaling.{ours}": rope.get(theirs) for ours, theirs in names.items()},
    }


def _mamba2(config: Any) -> dict[str, Any]:
    return {
        "ssm.conv_kernel": config.mamba_d_conv,
        "ssm.state_size": config.mamba_d_state,
        "ssm.group_count": config.mamba_n_groups,
        "ssm.time_step_rank": config.mamba_n_heads,
        "ssm.inner_size": config.mamba_n_heads * config.mamba_d_head,
    }


def _granite(config: Any) -> dict[str, Any]:
    return {
        "attention.scale": float(config.attention_multiplier),
        "embedding_scale": float(config.embedding_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "logit_scale": float(config.logits_scaling),
    }


def _gemma4(config: Any) -> dict[str, Any]:
    """Return what is said of Gemma 4's layers, whose full ones have other heads."""
    full = [kind == "full_attention" for kind in config.layer_types]
    shared, said = config.num_kv_shared_layers, config.per_layer_config
    unlike: dict[str, int] = next((each for index, each in said.items() if full[int(index)]), {})
    wide = unlike.get("head_dim", config.head_dim)
    groups = [
        said.get(str(index), {}).get("num_key_value_heads", config.num_key_value_heads)
        for index in range(len(full))
    ]
    width = config.intermediate_size
    if config.use_double_wide_mlp:
        width = [width * (1 + (index >= len(full) - shared)) for index in range(len(full))]
    return {
        "attention.key_length": wide,
        "attention.value_length": wide,
        "attention.key_length_swa": config.head_dim,
        "attention.value_length_swa": config.head_dim,
        "rope.dimension_count": wide,
        "rope.dimension_count_swa": config.head_dim,
        "rope.freq_base_swa": float(config.rope_parameters["sliding_attention"]["rope_theta"]),
        "attention.head_count_kv": groups,
        "attention.shared_kv_layers": shared,
        "feed_forward_length": width,
        "embedding_length_per_layer_input": config.hidden_size_per_layer_input,
        "final_logit_softcapping": config.final_logit_softcapping,
        "expert_used_count": config.top_k_experts,
    }
