"""What the metadata say of architectures with experts, as configurations of their families spell it."""

from __future__ import annotations

from roots_compress.families.gguf.configured import MODEL_TYPE, Config, nothing_else
from roots_compress.families.gguf.metadata import Metadata
from roots_compress.families.gguf.settings import convolutions, granite, windows

EXPERTS, CHOSEN, EXPERT_CHANNELS = "expert_count", "expert_used_count", "expert_feed_forward_length"
GATING, EXPERT_SCALE, DENSE = "expert_gating_func", "expert_weights_scale", "leading_dense_block_count"
SHARED_CHANNELS, NORMALISED = "expert_shared_feed_forward_length", "expert_weights_norm"
EXPERT_KEYS = frozenset({EXPERTS, CHOSEN, EXPERT_CHANNELS})
SIGMOID = 2
"""llama.cpp's number for experts that are weighed by sigmoids."""


def experts(metadata: Metadata, key: str) -> Config:
    """Return what is said of experts."""
    count = metadata.number(EXPERTS)
    return {key: count, "num_experts_per_tok": metadata.number(CHOSEN, most=count)}


def undivided(metadata: Metadata) -> Config:
    """Return that the chosen experts' weights are as the softmax gives them, which llama.cpp always takes."""
    if metadata.get(NORMALISED):
        metadata.refuse(NORMALISED, "is true: weights that are divided by their sum are not read here")
    return {"norm_topk_prob": False}


def llama(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Llama, or of a Mixtral, which has experts."""
    if not metadata.get(EXPERTS):
        return config
    width = metadata.number(EXPERT_CHANNELS, metadata.one("feed_forward_length"))
    found = experts(metadata, "num_local_experts")
    return {**config, MODEL_TYPE: "mixtral", **found, "intermediate_size": width}


def qwen3_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Qwen3-MoE: llama.cpp divides the chosen experts' weights by their sum."""
    found = experts(metadata, "num_experts")
    width = metadata.number(EXPERT_CHANNELS)
    return {**config, **found, "moe_intermediate_size": width, "norm_topk_prob": True}


def granite_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Granite, with or without experts."""
    found = granite(metadata, config)
    if metadata.get(EXPERTS):
        found |= experts(metadata, "num_local_experts")
        del found["mlp_bias"]
        if metadata.get(SHARED_CHANNELS):
            found |= {MODEL_TYPE: "granitemoeshared"}
            found |= {"shared_intermediate_size": metadata.number(SHARED_CHANNELS)}
    return found


def olmoe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of an OLMoE, whose chosen experts' weights are as the softmax gives them."""
    return {**nothing_else(metadata, config), **experts(metadata, "num_experts"), **undivided(metadata)}


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
    """Return the configuration of an LFM2 with experts."""
    if metadata.get(GATING) != SIGMOID:
        metadata.refuse(GATING, f"is {metadata.get(GATING)!r:.100}; it must be {SIGMOID}, for sigmoids")
    biased = any(
        f"blk.{index}.exp_probs_b.bias" in metadata.model.tensors for index in range(metadata.layers)
    )
    return {
        **convolutions(metadata, config),
        **experts(metadata, "num_experts"),
        "num_dense_layers": metadata.get(DENSE) or 0,
        "moe_intermediate_size": metadata.number(EXPERT_CHANNELS),
        "use_expert_bias": biased,
        "routed_scaling_factor": metadata.factor(EXPERT_SCALE),
    }


def with_shared_expert(metadata: Metadata) -> Config:
    """Return the keys of routed experts and of the shared expert."""
    return {
        **experts(metadata, "num_experts"),
        "moe_intermediate_size": metadata.number(EXPERT_CHANNELS),
        "shared_expert_intermediate_size": metadata.number(SHARED_CHANNELS),
    }


def qwen2_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Qwen2-MoE, whose weights are as the softmax gives them."""
    return {**config, **with_shared_expert(metadata), **undivided(metadata), "use_sliding_window": False}
