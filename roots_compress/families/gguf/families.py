"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

from functools import partial

from roots_compress.families.gguf import experts as of_experts
from roots_compress.families.gguf import recurrent, routed
from roots_compress.families.gguf import settings as of
from roots_compress.families.gguf.bert import BertLayout, BertReader
from roots_compress.families.gguf.configured import MLP, OUTPUT, QKV, Configured, learned, longrope, rotary
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
    FUSED_GATE_UP,
    FUSED_QKV,
    MAMBA2,
    ROUTED,
    SHARED,
    Layout,
    falcon_names,
    latent_names,
)
from roots_compress.families.gguf.positions import LONGROPE_TENSORS

PARTLY = partial(rotary, partial=True)
HYBRID = {
    **DELTA_NET,
    **SHARED,
    "self_attn.gate_proj": "attn_q",
    **dict.fromkeys(("mlp_pre_norm", "shared_mlp_pre_norm"), "post_attention_norm"),
}
QWEN35 = Layout(HYBRID, by_head=True, tiled=True)


GGUF_FAMILIES: dict[str, GgufFamily] = {
    family.architecture: family
    for family in (
        GgufFamily(
            "llama",
            Configured("llama", of_experts.llama, EXPERT_KEYS, layered=True, biases=(*QKV, *OUTPUT, *MLP)),
            Layout(paired=True),
        ),
        GgufFamily("qwen2", Configured("qwen2", of.no_biases, layered=True)),
        GgufFamily("qwen3", Configured("qwen3", of.no_biases, layered=True, biases=(*QKV, *OUTPUT))),
        GgufFamily("qwen3moe", Configured("qwen3_moe", of_experts.qwen3_moe, EXPERT_KEYS, layered=True)),
        GgufFamily("gemma", Configured("gemma", of.no_biases, layered=True)),
        GgufFamily("gemma2", Configured("gemma2", of.gemma2, of.GEMMA_KEYS | {of.SCORE_CAP}, layered=True)),
        GgufFamily(
            "gemma3", Configured("gemma3_text", of.gemma3, of.GEMMA_KEYS | {of.SLIDING_BASE}, layered=True)
        ),
        GgufFamily(
            "phi3",
            Configured(
                "phi3",
                of.phi3,
                frozenset({of.WINDOW}),
                positions=longrope,
                factors=LONGROPE_TENSORS,
                layered=True,
            ),
            Layout({**FUSED_QKV, **FUSED_GATE_UP}),
        ),
        GgufFamily(
            "gpt2",
            Configured(
                "gpt2",
                of.gpt2,
                positions=learned,
                norm="layer_norm",
                eps_key="layer_norm_epsilon",
                factors=(),
                layered=True,
            ),
            Layout(FUSED_QKV),
        ),
        GgufFamily(
            "starcoder2",
            Configured(
                "starcoder2",
                of.starcoder2,
                norm="layer_norm",
                eps_key="norm_epsilon",
                layered=True,
                biases=(*QKV, *OUTPUT, *MLP),
            ),
        ),
        GgufFamily(
            "nemotron",
            Configured(
                "nemotron",
                of.no_biases,
                positions=PARTLY,
                norm="layer_norm",
                eps_key="norm_eps",
                layered=True,
                biases=(*QKV, *OUTPUT, *MLP),
            ),
        ),
        GgufFamily(
            "stablelm",
            Configured(
                "stablelm",
                of.no_biases,
                positions=PARTLY,
                norm="layer_norm",
                eps_key="layer_norm_eps",
                layered=True,
                biases=QKV,
            ),
        ),
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
            "granite",
            Configured("granite", of.granite, of.GRANITE_KEYS | {CHOSEN, SHARED_CHANNELS}),
            Layout(paired=True),
        ),
        GgufFamily(
            "granitemoe",
            Configured(
                "granitemoe", of_experts.granite_moe, of.GRANITE_KEYS | EXPERT_KEYS | {SHARED_CHANNELS}
            ),
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
        GgufFamily("smollm3", Configured("smollm3", of.with_biases), Layout(paired=True)),
        GgufFamily("olmo2", Configured("olmo2", of.olmo2, of.WINDOW_KEYS)),
        GgufFamily("olmoe", Configured("olmoe", of_experts.olmoe, EXPERT_KEYS | {NORMALISED})),
        GgufFamily("glm4", Configured("glm4", positions=PARTLY), Layout(FUSED_GATE_UP, paired=True)),
        GgufFamily("chatglm", Configured("glm", positions=PARTLY), Layout(FUSED_GATE_UP, paired=True)),
        GgufFamily(
            "command-r",
            Configured(
                "cohere", of.cohere, frozenset({of.LOGITS}), norm="layer_norm", eps_key="layer_norm_eps"
            ),
            Layout(paired=True),
        ),
        GgufFamily(
            "cohere2",
            Configured(
                "cohere2",
                of.cohere2,
                of.WINDOW_KEYS | {of.LOGITS},
                norm="layer_norm",
                eps_key="layer_norm_eps",
            ),
            Layout(paired=True),
        ),
        GgufFamily("exaone4", Configured("exaone4", of.exaone4, of.WINDOW_KEYS)),
        GgufFamily("ernie4_5", Configured("ernie4_5", of.one_switch), Layout(paired=True)),
        GgufFamily("hunyuan-dense", Configured("hunyuan_v1_dense")),
        GgufFamily("arcee", Configured("arcee", of.with_biases), Layout(paired=True)),
        GgufFamily(
            "mistral3",
            Configured("ministral3", of.mistral3, frozenset({of.GROWTH, of.LOG_MULTIPLIER})),
            Layout(paired=True),
        ),
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
            Configured("glm4_moe", routed.glm4_moe, routed.ROUTED_KEYS, PARTLY),
            Layout({**ROUTED, **AFTER_ATTENTION}),
        ),
        GgufFamily(
            "deepseek2",
            Configured("deepseek_v2", routed.deepseek2, routed.OF_DEEPSEEK, head_size=routed.turned),
            Layout(latent_names, paired=True),
        ),
        GgufFamily(
            "phi2",
            Configured("phi", of.no_biases, positions=PARTLY, norm="layer_norm", eps_key="layer_norm_eps"),
        ),
        GgufFamily(
            "gptneox",
            Configured(
                "gpt_neox",
                of.gpt_neox,
                frozenset({of.PARALLEL}),
                positions=PARTLY,
                norm="layer_norm",
                eps_key="layer_norm_eps",
            ),
            Layout(FUSED_QKV),
        ),
        GgufFamily(
            "falcon",
            Configured("falcon", of.falcon, norm="layer_norm", eps_key="layer_norm_epsilon"),
            Layout(falcon_names),
        ),
        GgufFamily(
            "starcoder",
            Configured(
                "gpt_bigcode",
                of.starcoder,
                positions=learned,
                norm="layer_norm",
                eps_key="layer_norm_epsilon",
                factors=(),
            ),
            Layout(FUSED_QKV),
        ),
        GgufFamily("bert", BertReader(), BertLayout()),
    )
}
"""By `general.architecture`. Mistral's models are among those of `llama`."""
