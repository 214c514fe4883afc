"""What the metadata of single architectures say besides, as configurations of their families spell it."""

from __future__ import annotations

from typing import Any

from roots_compress.families.gguf.configured import MODEL_TYPE, Config, nothing_else
from roots_compress.families.gguf.metadata import Metadata
from roots_compress.families.rope import FULL, SLIDING

WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
SLIDING_BASE = "rope.freq_base_swa"
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
PARALLEL, KERNEL = "use_parallel_residual", "shortconv.l_cache"
SCORE_CAP, LOGIT_CAP = "attn_logit_softcapping", "final_logit_softcapping"
GEMMA_KEYS = frozenset({WINDOW, PATTERN, LOGIT_CAP})
WIDE_GEMMAS = {"gemma2": 46, "gemma3": 62}
"""Layers of the models with 27 billion weights, which alone scale scores by the width over the heads."""
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


def with_biases(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a family whose feed-forward blocks may have them."""
    return {**nothing_else(metadata, config), "mlp_bias": metadata.biased("ffn_up", "ffn_down")}


def one_switch(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of ERNIE 4.5: all of its blocks have biases, or none."""
    return {**config, "use_bias": metadata.biased("attn_q", "attn_qkv", "ffn_up")}


def granite(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Granite without experts."""
    if metadata.get(TURNED) is False and MODEL_TYPE not in config:
        metadata.refuse(TURNED, "is false: a Granite without positions is read as granitehybrid only")
    return {
        **with_biases(metadata, config),
        "embedding_multiplier": metadata.factor("embedding_scale"),
        "residual_multiplier": metadata.factor("residual_scale"),
        "attention_multiplier": metadata.factor(SCORES, config["head_dim"] ** -0.5),
        "logits_scaling": metadata.factor(LOGITS),
    }


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


def gpt2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a GPT-2, by its names."""
    unread = ("head_dim", "intermediate_size", "num_key_value_heads")
    found = {key: value for key, value in config.items() if key not in unread}
    return {**found, "n_inner": config["intermediate_size"]}


def starcoder(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a StarCoder, by GPT-2's names."""
    if config["num_key_value_heads"] != 1:
        metadata.refuse("attention.head_count_kv", "is not 1; models of one head of keys and values are read")
    return {**gpt2(metadata, config), "multi_query": True}


def starcoder2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a StarCoder 2, whose biases are those in the file."""
    return {**config, "use_bias": False}


def phi3(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Phi-3, whose layers all slide if any does."""
    return {**config, "sliding_window": metadata.number(WINDOW) if metadata.get(WINDOW) else None}


def lfm2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of an LFM2; its feed-forward blocks are as wide as the file says."""
    return {**convolutions(metadata, config), "block_auto_adjust_ff_dim": False}


def convolutions(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a decoder whose layers without key heads have convolutions."""
    groups = metadata.numbers("attention.head_count_kv", least=0)
    return {
        **config,
        "layer_types": [FULL if each else "conv" for each in groups],
        "conv_L_cache": metadata.number(KERNEL),
    }


def gemma2(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Gemma 2."""
    return {
        **_gemma(metadata, config, window=4096, every=2, cap=30.0),
        "attn_logit_softcapping": metadata.positive(SCORE_CAP, 50.0),
    }


def gemma3(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Gemma 3; the positions of layers that slide are not scaled."""
    sliding = {"rope_type": "default", "rope_theta": metadata.positive(SLIDING_BASE, 10000.0)}
    return {
        **_gemma(metadata, config, window=None, every=6, cap=None),
        "rope_parameters": {FULL: config["rope_parameters"], SLIDING: sliding},
    }


def _gemma(
    metadata: Metadata, config: Config, *, window: int | None, every: int, cap: float | None
) -> Config:
    """Return what the configurations of Gemma 2 and 3 share; 0 stands for no window, and for no bound.

    Args:
        window: where the file names none.
        every: all layers slide but every so-manieth, unless the file tells them apart.
        cap: the bound of logits where the file names none.
    """
    said, bound = metadata.get(WINDOW), metadata.get(LOGIT_CAP)
    if said is not None:
        window = metadata.number(WINDOW) if said else None
    if bound is not None:
        cap = metadata.positive(LOGIT_CAP) if bound else None
    slides = metadata.flags(PATTERN, every)
    wide = metadata.layers == WIDE_GEMMAS[metadata.model.architecture]
    return {
        **config,
        "sliding_window": window,
        "layer_types": layer_types(slides if window else [False] * metadata.layers),
        # No key says it: the number of layers tells the models apart.
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"]
        ),
        "final_logit_softcapping": cap,
    }


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
