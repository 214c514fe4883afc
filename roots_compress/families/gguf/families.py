"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from roots_compress.families.gguf import recurrent
from roots_compress.families.gguf import settings as of
from roots_compress.families.gguf.configured import Configured, learned, rotary
from roots_compress.families.gguf.family import GgufFamily
from roots_compress.families.gguf.gemma4 import (
    GEMMA4_KEYS,
    gemma4_experts,
    gemma4_names,
    gemma4_positions,
    gemma4_settings,
)
from roots_compress.families.gguf.layered import Layered
from roots_compress.families.gguf.layers import (
    GEMMA2_KEYS,
    GEMMA3_KEYS,
    KERNEL,
    MOE_KEYS,
    gemma2_layer,
    gemma3_layer,
    gemma_head,
    lfm2_layer,
    llama_layer,
    phi3_layer,
    plain_layer,
    qwen3_moe_layer,
)
from roots_compress.families.gguf.names import (
    BETA_AND_ALPHA,
    DELTA_NET,
    FUSED_GATE_UP,
    FUSED_QKV,
    MAMBA2,
    SHARED,
    Layout,
)
from roots_compress.families.gguf.positions import LONGROPE_TENSORS
from roots_compress.families.gguf.reading import WINDOW
from roots_compress.models.spec import ModelSpec

PARTLY = partial(rotary, partial=True)
QKV = ("attn_q", "attn_k", "attn_v", "attn_qkv")
OUTPUT, MLP = "attn_output", ("ffn_gate", "ffn_up", "ffn_down")


HYBRID = {
    **DELTA_NET,
    **SHARED,
    "self_attn.gate_proj": "attn_q",
    **dict.fromkeys(("mlp_pre_norm", "shared_mlp_pre_norm"), "post_attention_norm"),
}
QWEN35 = Layout(HYBRID, by_head=True, tiled=True)


def falcon_names(spec: ModelSpec) -> Mapping[str, str]:
    """Return the names of Falcon's modules: where a layer has two norms, the first is not attention's."""
    attention, mlp = spec.layers[0]
    two = attention.parallel and not mlp.shares_norm
    return FUSED_QKV | ({"self_attn_pre_norm": "attn_norm_2", "mlp_pre_norm": "attn_norm"} if two else {})


GGUF_FAMILIES: dict[str, GgufFamily] = {
    family.architecture: family
    for family in (
        GgufFamily("llama", Layered(llama_layer, (*QKV, OUTPUT, *MLP), MOE_KEYS), Layout(paired=True)),
        GgufFamily("qwen2", Layered(partial(plain_layer, biases=True), QKV)),
        GgufFamily("qwen3", Layered(partial(plain_layer, qk_norm=True), (*QKV, OUTPUT))),
        GgufFamily("qwen3moe", Layered(qwen3_moe_layer, keys=MOE_KEYS)),
        GgufFamily("gemma", Layered(partial(plain_layer, activation="gelu_tanh"), scaled=True)),
        GgufFamily(
            "gemma2",
            Layered(
                gemma2_layer, keys=GEMMA2_KEYS, scaled=True, head=lambda reading: gemma_head(reading, 30.0)
            ),
        ),
        GgufFamily(
            "gemma3",
            Layered(
                gemma3_layer, keys=GEMMA3_KEYS, scaled=True, head=lambda reading: gemma_head(reading, None)
            ),
        ),
        GgufFamily(
            "phi3",
            Layered(phi3_layer, keys=frozenset({WINDOW}), factors=LONGROPE_TENSORS),
            Layout({**FUSED_QKV, **FUSED_GATE_UP}),
        ),
        GgufFamily(
            "gpt2",
            Layered(
                partial(plain_layer, biases=True, activation="gelu_tanh", gated=False, bias=True),
                (*QKV, OUTPUT, *MLP),
                rotary=False,
                norm="layer_norm",
                factors=(),
            ),
            Layout(FUSED_QKV),
        ),
        GgufFamily(
            "starcoder2",
            Layered(
                partial(plain_layer, activation="gelu_tanh", gated=False),
                (*QKV, OUTPUT, *MLP),
                norm="layer_norm",
            ),
        ),
        GgufFamily(
            "nemotron",
            Layered(
                partial(plain_layer, activation="relu2", gated=False),
                (*QKV, OUTPUT, *MLP),
                partial=True,
                norm="layer_norm",
            ),
        ),
        GgufFamily("stablelm", Layered(plain_layer, QKV, partial=True, norm="layer_norm")),
        GgufFamily(
            "lfm2",
            Layered(lfm2_layer, keys=frozenset({KERNEL}), fewest_groups=0),
            Layout(outer={"norm": "token_embd_norm"}),
        ),
        GgufFamily(
            "gpt-oss",
            Configured("gpt_oss", of.gpt_oss, of.EXPERT_KEYS | of.WINDOW_KEYS),
            Layout({"mlp_pre_norm": "post_attention_norm"}),
        ),
        GgufFamily(
            "granite",
            Configured("granite", of.granite, of.GRANITE_KEYS | {of.CHOSEN, of.SHARED_CHANNELS}),
            Layout(paired=True),
        ),
        GgufFamily(
            "granitemoe",
            Configured("granitemoe", of.granite, of.GRANITE_KEYS | of.EXPERT_KEYS),
            Layout(paired=True),
        ),
        GgufFamily(
            "granitehybrid",
            Configured(
                "granitemoehybrid",
                recurrent.granite_hybrid,
                of.GRANITE_KEYS | recurrent.SSM_KEYS | {of.CHOSEN, of.SHARED_CHANNELS},
            ),
            Layout(MAMBA2, paired=True),
        ),
        GgufFamily(
            "falcon-h1",
            Configured("falcon_h1", recurrent.falcon_h1, recurrent.SSM_KEYS),
            Layout(MAMBA2, bare=("ffn_norm",)),
        ),
        GgufFamily("smollm3", Configured("smollm3", of.with_biases), Layout(paired=True)),
        GgufFamily("olmo2", Configured("olmo2", of.olmo2, of.WINDOW_KEYS)),
        GgufFamily("olmoe", Configured("olmoe", of.olmoe, of.EXPERT_KEYS | {of.NORMALISED})),
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
                of.lfm2_moe,
                of.EXPERT_KEYS | {KERNEL, of.GATING, of.EXPERT_SCALE, of.DENSE},
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
                recurrent.SSM_KEYS | recurrent.HYBRID_KEYS | of.EXPERT_KEYS | {of.SHARED_CHANNELS},
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
                recurrent.SSM_KEYS | recurrent.HYBRID_KEYS | of.EXPERT_KEYS | {of.SHARED_CHANNELS},
                PARTLY,
            ),
            Layout({**HYBRID, **BETA_AND_ALPHA}, by_head=True),
        ),
        GgufFamily(
            "qwen2moe",
            Configured("qwen2_moe", of.qwen2_moe, of.EXPERT_KEYS | {of.SHARED_CHANNELS, of.NORMALISED}),
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
    )
}
"""By `general.architecture`. Mistral's models are among those of `llama`."""
