"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

from roots_compress.families.gguf import experts as of_experts
from roots_compress.families.gguf import settings as of
from roots_compress.families.gguf.bert import BertLayout, BertReader, NomicLayout, NomicReader
from roots_compress.families.gguf.configured import MLP, OUTPUT, PARTLY, QKV, Configured, learned, longrope
from roots_compress.families.gguf.experts import CHOSEN, EXPERT_KEYS, SHARED_CHANNELS
from roots_compress.families.gguf.family import GgufFamily
from roots_compress.families.gguf.mixtures import MIXTURES
from roots_compress.families.gguf.names import (
    FUSED_GATE_UP,
    FUSED_QKV,
    Layout,
    falcon_names,
)
from roots_compress.families.gguf.positions import LONGROPE_TENSORS
from roots_compress.families.gguf.t5 import T5EncoderLayout, T5EncoderReader

DECODERS = (
    GgufFamily(
        "llama",
        Configured("llama", of_experts.llama, EXPERT_KEYS, layered=True, biases=(*QKV, *OUTPUT, *MLP)),
        Layout(paired=True),
    ),
    GgufFamily("qwen2", Configured("qwen2", of.no_biases, layered=True)),
    GgufFamily("qwen3", Configured("qwen3", of.no_biases, layered=True, biases=(*QKV, *OUTPUT))),
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
        "granite",
        Configured("granite", of.granite, of.GRANITE_KEYS | {CHOSEN, SHARED_CHANNELS}),
        Layout(paired=True),
    ),
    GgufFamily("smollm3", Configured("smollm3", of.with_biases), Layout(paired=True)),
    GgufFamily("olmo2", Configured("olmo2", of.olmo2, of.WINDOW_KEYS)),
    GgufFamily("glm4", Configured("glm4", positions=PARTLY), Layout(FUSED_GATE_UP, paired=True)),
    GgufFamily("chatglm", Configured("glm", positions=PARTLY), Layout(FUSED_GATE_UP, paired=True)),
    GgufFamily(
        "command-r",
        Configured("cohere", of.cohere, frozenset({of.LOGITS}), norm="layer_norm", eps_key="layer_norm_eps"),
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
ENCODERS = (
    GgufFamily("bert", BertReader(), BertLayout()),
    GgufFamily("nomic-bert", NomicReader(), NomicLayout()),
    GgufFamily("t5encoder", T5EncoderReader(), T5EncoderLayout()),
)
GGUF_FAMILIES: dict[str, GgufFamily] = {
    family.architecture: family for family in (*DECODERS, *MIXTURES, *ENCODERS)
}
"""By `general.architecture`. Mistral's models are among those of `llama`."""
