"""What the metadata say of architectures most of whose layers, or parts of them, keep a recurrent state."""

from __future__ import annotations

from roots_compress.families.gguf.configured import MODEL_TYPE, Config, nothing_else
from roots_compress.families.gguf.experts import EXPERTS, SHARED_CHANNELS, experts, with_shared_expert
from roots_compress.families.gguf.metadata import Metadata
from roots_compress.families.gguf.settings import TURNED, granite, with_biases
from roots_compress.families.rope import FULL

CONV, STATE, GROUPS, INNER, HEADS = (
    f"ssm.{name}" for name in ("conv_kernel", "state_size", "group_count", "inner_size", "time_step_rank")
)
SSM_KEYS = frozenset({CONV, STATE, GROUPS, INNER, HEADS})
RECURRENT, INTERVAL, SECTIONS = (
    "attention.recurrent_layers",
    "full_attention_interval",
    "rope.dimension_sections",
)
HYBRID_KEYS = frozenset({RECURRENT, INTERVAL, SECTIONS})
"""`SECTIONS` says how positions of images differ; those of text are one number."""


def value_heads(metadata: Metadata) -> tuple[int, int]:
    """Return the value heads of linear attention and their size."""
    inner, heads = metadata.number(INNER), metadata.number(HEADS)
    if inner % heads:
        metadata.refuse(INNER, f"is {inner}, which is not a multiple of {HEADS} {heads}")
    return heads, inner // heads


def mamba2(metadata: Metadata) -> Config:
    """Return what is said of Mamba-2."""
    heads, size = value_heads(metadata)
    return {
        "mamba_n_heads": heads,
        "mamba_d_head": size,
        "mamba_n_groups": metadata.number(GROUPS),
        "mamba_d_state": metadata.number(STATE),
        "mamba_d_conv": metadata.number(CONV),
        "mamba_conv_bias": metadata.biased("ssm_conv1d"),
    }


def granite_hybrid(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Granite 4, whose layers without key heads are Mamba-2."""
    groups, inner = metadata.numbers("attention.head_count_kv", least=0), metadata.number(INNER)
    if inner % config["hidden_size"]:
        metadata.refuse(INNER, f"is {inner}, which is not a multiple of the width {config['hidden_size']}")
    found = granite(metadata, {**config, MODEL_TYPE: "granitemoehybrid"})
    del found["mlp_bias"]
    mlp: Config = {"shared_intermediate_size": config["intermediate_size"], "num_local_experts": 0}
    if metadata.get(EXPERTS):
        mlp = experts(metadata, "num_local_experts")
        mlp |= {"shared_intermediate_size": metadata.number(SHARED_CHANNELS)}
    return {
        **found,
        **mamba2(metadata),
        **mlp,
        "layer_types": ["attention" if each else "mamba" for each in groups],
        "position_embedding_type": None if metadata.get(TURNED) is False else "rope",
        "mamba_expand": inner // config["hidden_size"],
    }


def falcon_h1(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Falcon-H1, whose factors are in the file's matrices."""
    return {
        **with_biases(metadata, config),
        **mamba2(metadata),
        "mamba_d_ssm": metadata.number(INNER),
        "mamba_rms_norm": "blk.0.ssm_norm.weight" in metadata.model.tensors,
        "mamba_norm_before_gate": False,
    }


def qwen35(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Qwen3.5, most of whose layers are Gated DeltaNet."""
    heads, size = value_heads(metadata)
    recurrent = RECURRENT if metadata.get(RECURRENT) is not None else INTERVAL
    linear = metadata.flags(recurrent, 4)
    return {
        **nothing_else(metadata, config),
        "layer_types": ["linear_attention" if each else FULL for each in linear],
        "linear_num_key_heads": metadata.number(GROUPS),
        "linear_num_value_heads": heads,
        "linear_key_head_dim": metadata.number(STATE),
        "linear_value_head_dim": size,
        "linear_conv_kernel_dim": metadata.number(CONV),
    }


def qwen35_moe(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Qwen3.5 with experts."""
    return {**qwen35(metadata, config), **with_shared_expert(metadata)}


def qwen3_next(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Qwen3-Next."""
    return {**qwen35_moe(metadata, config), "norm_topk_prob": True}
