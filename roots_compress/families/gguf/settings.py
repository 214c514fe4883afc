"""What the metadata of single architectures say besides, as configurations of their families spell it."""

from __future__ import annotations

from typing import Any

from roots_compress.families.gguf.configured import MODEL_TYPE, Config, nothing_else
from roots_compress.families.gguf.metadata import Metadata
from roots_compress.families.gguf.reading import PATTERN, WINDOW
from roots_compress.families.rope import FULL, SLIDING

EXPERTS, CHOSEN, EXPERT_CHANNELS = "expert_count", "expert_used_count", "expert_feed_forward_length"
GATING, EXPERT_SCALE, DENSE = "expert_gating_func", "expert_weights_scale", "leading_dense_block_count"
SHARED_CHANNELS = "expert_shared_feed_forward_length"
EXPERT_KEYS = frozenset({EXPERTS, CHOSEN, EXPERT_CHANNELS})
SLIDING_BASE, NORMALISED = "rope.freq_base_swa", "expert_weights_norm"
WINDOW_KEYS = frozenset({WINDOW, PATTERN, SLIDING_BASE})
LOGITS, SCORES = "logit_scale", "attention.scale"
GRANITE_KEYS = frozenset({LOGITS, SCORES, "residual_scale", "embedding_scale"})
TURNED = "rope.scaling.finetuned"
"""Granite's name of whether its layers have positions."""
GROWTH, LOG_MULTIPLIER, ORIGINAL = (
    "attention.temperature_scale",
    "rope.scaling.yarn_log_multiplier",
    "original_max_position_embeddings",
)
SIGMOID = 2
"""llama.cpp's number for experts that are weighed by sigmoids."""
PARALLEL = "use_parallel_residual"
LARGE_EXAONE = 64
"""Layers of the EXAONE 4 that has windows, also where its file does not say so."""


def layer_types(slides: list[bool]) -> list[str]:
    """Return transformers' names of what layers attend to."""
    return [SLIDING if each else FULL for each in slides]


def windows(metadata: Metadata, config: Config, every: int) -> Config:
    """Return the windows of a family whose layers share their positions; each `every`-th has no window."""
    metadata.agree(SLIDING_BASE, config["rope_parameters"]["rope_theta"])
    return {
        "sliding_window": metadata.number(WINDOW),
        "layer_types": layer_types(metadata.flags(PATTERN, every)),
    }


def no_biases(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a family without such a switch."""
    return config


def with_biases(metadata: Metadata, config: Config, *, key: str = "mlp_bias") -> Config:
    """Return the configuration of a family whose feed-forward blocks may have them."""
    return {**nothing_else(metadata, config), key: metadata.biased("ffn_up", "ffn_down")}


def one_switch(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of ERNIE 4.5: all of its blocks have biases, or none."""
    return {**config, "use_bias": metadata.biased("attn_q", "attn_qkv", "ffn_up")}


def experts(metadata: Metadata, key: str) -> Config:
    """Return what is said of experts."""
    return {key: metadata.number(EXPERTS), "num_experts_per_tok": metadata.number(CHOSEN)}


def undivided(metadata: Metadata) -> Config:
    """Return that the chosen experts' weights are as the softmax gives them, which llama.cpp always takes."""
    if metadata.get(NORMALISED):
        metadata.refuse(NORMALISED, "is true: weights that are divided by their sum are not read here")
    return {"norm_topk_prob": False}


def granite(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Granite, with or without experts."""
    if metadata.get(TURNED) is False and MODEL_TYPE not in config:
        metadata.refuse(TURNED, "is false: a Granite without positions is read as granitehybrid only")
    found = {
        **with_biases(metadata, config),
        "embedding_multiplier": metadata.factor("embedding_scale"),
        "residual_multiplier": metadata.factor("residual_scale"),
        "attention_multiplier": metadata.factor(SCORES, config["head_dim"] ** -0.5),
        "logits_scaling": metadata.factor(LOGITS),
    }
    if metadata.get(EXPERTS):
        found |= experts(metadata, "num_local_experts")
        del found["mlp_bias"]
    return found


def olmo2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of an OLMo 2, or of an OLMo 3, which has windows."""
    if not metadata.get(WINDOW):
        return nothing_else(metadata, config)
    rope = config["rope_parameters"]
    sliding = {
        "rope_type": "default",
        "rope_theta": metadata.factor(SLIDING_BASE, rope["rope_theta"]),
    }
    return {
        **nothing_else(metadata, config),
        MODEL_TYPE: "olmo3",
        "rope_parameters": {FULL: rope, SLIDING: sliding},
        "sliding_window": metadata.number(WINDOW),
        "layer_types": layer_types(metadata.flags(PATTERN, 4)),
    }


def olmoe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of an OLMoE, whose chosen experts' weights are as the softmax gives them."""
    return {**nothing_else(metadata, config), **experts(metadata, "num_experts"), **undivided(metadata)}


def cohere(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Cohere."""
    return {**nothing_else(metadata, config), LOGITS: metadata.factor(LOGITS)}


def cohere2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Cohere 2, all of whose layers but every fourth have windows."""
    return {**cohere(metadata, config), **windows(metadata, config, 4)}


def exaone4(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of an EXAONE 4."""
    default = 4096 if metadata.layers == LARGE_EXAONE else 0
    window = metadata.get(WINDOW) or default
    slides = metadata.flags(PATTERN, 4) if window else [False] * metadata.layers
    metadata.agree(SLIDING_BASE, config["rope_parameters"]["rope_theta"])
    return {
        **config,
        "sliding_window": metadata.number(WINDOW, window) if window else None,
        "layer_types": layer_types(slides),
    }


def starcoder(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a StarCoder, by GPT-2's names."""
    if config.pop("num_key_value_heads") != 1:
        metadata.refuse("attention.head_count_kv", "is not 1; models of one head of keys and values are read")
    config["n_inner"] = config.pop("intermediate_size")
    del config["head_dim"]
    return {**config, "multi_query": True}


def falcon(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Falcon; the larger ones have two norms in a layer."""
    two = "blk.0.attn_norm_2.weight" in metadata.model.tensors
    heads, kv_heads = config["num_attention_heads"], config.pop("num_key_value_heads")
    grouped = two or kv_heads not in (1, heads)
    del config["head_dim"]
    config["ffn_hidden_size"] = config.pop("intermediate_size")
    norms: Config = {"num_ln_in_parallel_attn": 2 if two else 1} if grouped else {}
    return {
        **config,
        **norms,
        "new_decoder_architecture": grouped,
        "multi_query": kv_heads == 1,
        "num_kv_heads": kv_heads,
        "bias": metadata.biased("attn_qkv", "attn_output"),
    }


def gpt_neox(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a GPT-NeoX, whose both blocks of a layer may read one stream."""
    return {**nothing_else(metadata, config), "use_parallel_residual": metadata.get(PARALLEL) is not False}


def gpt_oss(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a gpt-oss; the bounds of its positions are not rounded."""
    rope = config["rope_parameters"]
    return {
        **nothing_else(metadata, config),
        **experts(metadata, "num_local_experts"),
        "rope_parameters": {**rope, "truncate": False} if rope["rope_type"] == "yarn" else rope,
        "intermediate_size": metadata.number(EXPERT_CHANNELS),
        **windows(metadata, config, 2),
    }


def lfm2_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of an LFM2 with experts, whose layers without key heads have convolutions."""
    if metadata.get(GATING) != SIGMOID:
        metadata.refuse(GATING, f"is {metadata.get(GATING)!r:.100}; it must be {SIGMOID}, for sigmoids")
    groups = metadata.numbers("attention.head_count_kv", least=0)
    biased = any(
        f"blk.{index}.exp_probs_b.bias" in metadata.model.tensors for index in range(metadata.layers)
    )
    return {
        **config,
        **experts(metadata, "num_experts"),
        "layer_types": [FULL if each else "conv" for each in groups],
        "conv_L_cache": metadata.number("shortconv.l_cache"),
        "num_dense_layers": metadata.get(DENSE) or 0,
        "moe_intermediate_size": metadata.number(EXPERT_CHANNELS),
        "use_expert_bias": biased,
        "routed_scaling_factor": metadata.factor(EXPERT_SCALE),
    }


def mistral3(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Ministral 3, or of a Mistral, whose queries do not grow."""
    growth = metadata.get(GROWTH)
    rope: dict[str, Any] = config["rope_parameters"]
    if multiplier := metadata.get(LOG_MULTIPLIER):
        rope = {**rope, "mscale": 1.0, "mscale_all_dim": multiplier}
    if not growth:
        return {**config, MODEL_TYPE: "mistral", "sliding_window": None, "rope_parameters": rope}
    if ORIGINAL not in rope:
        metadata.refuse(GROWTH, "says that queries grow, and no key from which position on")
    return {**config, "rope_parameters": {**rope, "llama_4_scaling_beta": metadata.positive(GROWTH)}}


def with_shared_expert(metadata: Metadata) -> Config:
    """Return what is said of experts and of the one that all tokens go through."""
    return {
        **experts(metadata, "num_experts"),
        "moe_intermediate_size": metadata.number(EXPERT_CHANNELS),
        "shared_expert_intermediate_size": metadata.number(SHARED_CHANNELS),
    }


def qwen2_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Qwen2-MoE, whose weights are as the softmax gives them."""
    return {**config, **with_shared_expert(metadata), **undivided(metadata), "use_sliding_window": False}
