"""What the metadata say of architectures with experts, as configurations of their families spell it."""

from __future__ import annotations

from typing import Any

from roots_compress.families.gguf.configured import MODEL_TYPE, Config, nothing_else
from roots_compress.families.gguf.metadata import Metadata, shortest
from roots_compress.families.gguf.settings import LOG_MULTIPLIER, convolutions, granite, windows

EXPERTS, CHOSEN, EXPERT_CHANNELS = "expert_count", "expert_used_count", "expert_feed_forward_length"
GATING, EXPERT_SCALE, DENSE = "expert_gating_func", "expert_weights_scale", "leading_dense_block_count"
SHARED_CHANNELS, NORMALISED = "expert_shared_feed_forward_length", "expert_weights_norm"
EXPERT_KEYS = frozenset({EXPERTS, CHOSEN, EXPERT_CHANNELS})
SIGMOID = 2
"""llama.cpp's number for experts that are weighed by sigmoids."""


SHARED_COUNT, GROUPS, BEST_GROUPS = "expert_shared_count", "expert_group_count", "expert_group_used_count"
ROUTED_KEYS = EXPERT_KEYS | {GATING, EXPERT_SCALE, NORMALISED, DENSE, SHARED_COUNT, GROUPS, BEST_GROUPS}
QUERY_RANK, RANK, WIDTH, VALUES = (
    f"attention.{name}" for name in ("q_lora_rank", "kv_lora_rank", "key_length_mla", "value_length_mla")
)
LATENT_KEYS = frozenset({QUERY_RANK, RANK, WIDTH, VALUES, LOG_MULTIPLIER})
OF_DEEPSEEK = ROUTED_KEYS | LATENT_KEYS
SOFTMAX = 1
"""llama.cpp's number for experts that are weighed by a softmax."""


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


def routed(metadata: Metadata) -> Config:
    """Return the keys of routed and shared experts, as transformers' newer families name them."""
    return {
        "n_routed_experts": metadata.number(EXPERTS),
        "num_experts_per_tok": metadata.number(CHOSEN),
        "moe_intermediate_size": metadata.number(EXPERT_CHANNELS),
        "n_shared_experts": metadata.number(SHARED_COUNT),
        "first_k_dense_replace": metadata.get(DENSE) or 0,
        "n_group": metadata.number(GROUPS, 1),
        "topk_group": metadata.number(BEST_GROUPS, 1),
        "norm_topk_prob": metadata.get(NORMALISED) is True,
        "routed_scaling_factor": metadata.factor(EXPERT_SCALE),
    }


def by_sigmoids(metadata: Metadata, default: int) -> bool:
    """Return whether the router is a sigmoid; it is a softmax otherwise."""
    gating = metadata.get(GATING) or default
    if gating not in (SOFTMAX, SIGMOID):
        metadata.refuse(GATING, f"is {gating!r:.100}; it must be {SOFTMAX} or {SIGMOID}")
    return bool(gating == SIGMOID)


def glm4_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a GLM-4.5, which may have norms of queries and keys."""
    if not by_sigmoids(metadata, SIGMOID):
        metadata.refuse(GATING, f"is {SOFTMAX}; it must be {SIGMOID}, for sigmoids")
    normed = "blk.0.attn_q_norm.weight" in metadata.model.tensors
    return {**nothing_else(metadata, config), **routed(metadata), "use_qk_norm": normed}


def turned(metadata: Metadata, _width: int, _heads: int) -> int:
    """Return how many channels of a query or key positions turn."""
    return metadata.number("rope.dimension_count")


def deepseek2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a DeepSeek-V2 or V3.

    Older files have keys and values by head in their keys, newer ones the vector that these are made of.
    """
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    if groups not in (1, heads):
        metadata.refuse("attention.head_count_kv", f"is {groups}; it must be 1, or {heads} as the heads are")
    rank, queries = metadata.number(RANK), metadata.get(QUERY_RANK)
    width = metadata.get(WIDTH) or metadata.number("attention.key_length")
    values = metadata.get(VALUES) or metadata.number("attention.value_length")
    found: dict[str, Any] = {
        **config,
        **routed(metadata),
        "num_key_value_heads": heads,
        "kv_lora_rank": rank,
        "q_lora_rank": None if queries is None else metadata.number(QUERY_RANK),
        "qk_rope_head_dim": config["head_dim"],
        "qk_nope_head_dim": width - config["head_dim"],
        "v_head_dim": values,
        "rope_parameters": _yarn(metadata, config["rope_parameters"]),
    }
    if by_sigmoids(metadata, SOFTMAX):
        return {**found, MODEL_TYPE: "deepseek_v3"}
    grouped = found["n_group"] > 1
    return {**found, "topk_method": "group_limited_greedy" if grouped else "greedy"}


def _yarn(metadata: Metadata, rope: dict[str, Any]) -> dict[str, Any]:
    """Return positions with the factor that YaRN has on scores; that on cosines it leaves as it is."""
    if rope["rope_type"] != "yarn":
        return rope
    larger = shortest(metadata.positive(LOG_MULTIPLIER) * 10)
    return {**rope, "mscale": larger, "mscale_all_dim": larger}
