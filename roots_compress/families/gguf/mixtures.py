"""The GGUF architectures whose layers have experts, a recurrent state or convolutions; see `families.py`."""

from __future__ import annotations

from roots_compress.families.gguf import experts as of_experts
from roots_compress.families.gguf import recurrent
from roots_compress.families.gguf import settings as of
from roots_compress.families.gguf.configured import PARTLY, Configured
from roots_compress.families.gguf.experts import CHOSEN, EXPERT_KEYS, EXPERTS, NORMALISED, SHARED_CHANNELS
from roots_compress.families.gguf.family import GgufFamily
from roots_compress.families.gguf.gemma4 import (
    GEMMA4_KEYS,
    gemma4_experts,
    gemma4_names,
    gemma4_positions,
    gemma4_settings,
)
from roots_compress.families.gguf.names import (
    AFTER_ATTENTION,
    BETA_AND_ALPHA,
    DELTA_NET,
    MAMBA2,
    ROUTED,
    SHARED,
    Layout,
    latent_names,
)

HYBRID = {
    **DELTA_NET,
    **SHARED,
    "self_attn.gate_proj": "attn_q",
    **dict.fromkeys(("mlp_pre_norm", "shared_mlp_pre_norm"), "post_attention_norm"),
}
QWEN35 = Layout(HYBRID, by_head=True, tiled=True)

MIXTURES = (
    GgufFamily("qwen3moe", Configured("qwen3_moe", of_experts.qwen3_moe, EXPERT_KEYS, layered=True)),
    GgufFamily(
        "lfm2",
        Configured("lfm2", of.lfm2, frozenset({of.KERNEL}), eps_key="norm_eps"),
        Layout(outer={"norm": "token_embd_norm"}),
    ),
    GgufFamily(
        "gpt-oss",
        Configured("gpt_oss", of_experts.gpt_oss, EXPERT_KEYS | of.WINDOW_KEYS),
        Layout({"mlp_pre_norm": "post_attention_norm"}),
    ),
    GgufFamily(
        "granitemoe",
        Configured("granitemoe", of_experts.granite_moe, of.GRANITE_KEYS | EXPERT_KEYS | {SHARED_CHANNELS}),
        Layout(ROUTED, paired=True),
    ),
    GgufFamily(
        "granitehybrid",
        Configured(
            "granitemoehybrid",
            recurrent.granite_hybrid,
            of.GRANITE_KEYS | recurrent.SSM_KEYS | {EXPERTS, CHOSEN, SHARED_CHANNELS},
        ),
        Layout({**MAMBA2, **ROUTED}, paired=True),
    ),
    GgufFamily(
        "falcon-h1",
        Configured("falcon_h1", recurrent.falcon_h1, recurrent.SSM_KEYS),
        Layout(MAMBA2, bare=("ffn_norm",)),
    ),
    GgufFamily("olmoe", Configured("olmoe", of_experts.olmoe, EXPERT_KEYS | {NORMALISED})),
    GgufFamily(
        "lfm2moe",
        Configured(
            "lfm2_moe",
            of_experts.lfm2_moe,
            EXPERT_KEYS | {of.KERNEL, of_experts.GATING, of_experts.EXPERT_SCALE, of_experts.DENSE},
            eps_key="norm_eps",
        ),
        Layout(outer={"norm": "token_embd_norm"}),
    ),
    GgufFamily(
        "qwen35",
        Configured("qwen3_5_text", recurrent.qwen35, recurrent.SSM_KEYS | recurrent.HYBRID_KEYS, PARTLY),
        QWEN35,
    ),
    GgufFamily(
        "qwen35moe",
        Configured(
            "qwen3_5_moe_text",
            recurrent.qwen35_moe,
            recurrent.SSM_KEYS | recurrent.HYBRID_KEYS | EXPERT_KEYS | {SHARED_CHANNELS},
            PARTLY,
            unsaid=frozenset({"feed_forward_length"}),
        ),
        QWEN35,
    ),
    GgufFamily(
        "qwen3next",
        Configured(
            "qwen3_next",
            recurrent.qwen3_next,
            recurrent.SSM_KEYS | recurrent.HYBRID_KEYS | EXPERT_KEYS | {SHARED_CHANNELS},
            PARTLY,
        ),
        Layout({**HYBRID, **BETA_AND_ALPHA}, by_head=True),
    ),
    GgufFamily(
        "qwen2moe",
        Configured("qwen2_moe", of_experts.qwen2_moe, EXPERT_KEYS | {SHARED_CHANNELS, NORMALISED}),
        Layout(SHARED),
    ),
    GgufFamily(
        "gemma4",
        Configured(
            "gemma4_text",
            gemma4_settings,
            GEMMA4_KEYS,
            gemma4_positions,
            varied=frozenset({"attention.head_count_kv", "feed_forward_length"}),
        ),
        Layout(gemma4_names, computed=gemma4_experts),
        unread=tuple(f"blk.{{}}.attn_{name}.weight" for name in ("k", "v", "k_norm")),
    ),
    GgufFamily(
        "glm4moe",
        Configured("glm4_moe", of_experts.glm4_moe, of_experts.ROUTED_KEYS, PARTLY),
        Layout({**ROUTED, **AFTER_ATTENTION}),
    ),
    GgufFamily(
        "deepseek2",
        Configured("deepseek_v2", of_experts.deepseek2, of_experts.OF_DEEPSEEK, head_size=of_experts.turned),
        Layout(latent_names, paired=True),
    ),
)
