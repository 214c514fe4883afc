"""GGUF metadata of routed experts with a shared expert, and of latent attention."""

from __future__ import annotations

from typing import Any

from roots_compress.families.gguf.configured import MODEL_TYPE, Config, nothing_else
from roots_compress.families.gguf.experts import (
    CHOSEN,
    DENSE,
    EXPERT_CHANNELS,
    EXPERT_KEYS,
    EXPERT_SCALE,
    EXPERTS,
    GATING,
    NORMALISED,
    SIGMOID,
)
from roots_compress.families.gguf.metadata import Metadata, shortest
from roots_compress.families.gguf.settings import LOG_MULTIPLIER

SHARED_COUNT, GROUPS, BEST_GROUPS = "expert_shared_count", "expert_group_count", "expert_group_used_count"
ROUTED_KEYS = EXPERT_KEYS | {GATING, EXPERT_SCALE, NORMALISED, DENSE, SHARED_COUNT, GROUPS, BEST_GROUPS}
QUERY_RANK, RANK, WIDTH, VALUES = (
    f"attention.{name}" for name in ("q_lora_rank", "kv_lora_rank", "key_length_mla", "value_length_mla")
)
LATENT_KEYS = frozenset({QUERY_RANK, RANK, WIDTH, VALUES, LOG_MULTIPLIER})
OF_DEEPSEEK = ROUTED_KEYS | LATENT_KEYS
SOFTMAX = 1
"""llama.cpp's number for experts that are weighed by a softmax."""


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
