"""The layers of each GGUF architecture, as llama.cpp builds them."""

from __future__ import annotations

from typing import Any

from roots_compress.families.decoder import pre_norm_layer
from roots_compress.families.gemma2 import four_norm_layer
from roots_compress.families.gguf.reading import PATTERN, WINDOW, Reading
from roots_compress.models.ops.attention import QkNorm, Rope
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.sublayer import Sublayer
from roots_compress.models.spec import Layer

SCORE_CAP, LOGIT_CAP, SLIDING_THETA = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.freq_base_swa",
)
GEMMA_KEYS = frozenset({WINDOW, PATTERN, LOGIT_CAP})
GEMMA2_KEYS = GEMMA_KEYS | {SCORE_CAP}
GEMMA3_KEYS = GEMMA_KEYS | {SLIDING_THETA}
EXPERT_CHANNELS = "expert_feed_forward_length"
KERNEL = "shortconv.l_cache"
MOE_KEYS = frozenset({"expert_count", "expert_used_count", EXPERT_CHANNELS})
WIDE_GEMMAS = {"gemma2": 46, "gemma3": 62}
"""Layers of the models with 27 billion weights, which alone scale scores by the width over the heads."""


def plain_layer(
    reading: Reading, index: int, *, biases: bool = False, qk_norm: bool = False, **mlp: Any
) -> Layer:
    """Return a layer like Llama's.

    Args:
        reading: the model's metadata.
        index: of the layer.
        biases: whether queries, keys and values have biases also where the file has none.
        qk_norm: whether each head's queries and keys are normalised.
        mlp: what the feed-forward block has otherwise.
    """
    of_heads = {"bias": True} if biases else {}
    normed = QkNorm(eps=reading.norm.eps) if qk_norm else None
    attention = reading.attention(index, qk_norm=normed, **of_heads)
    return pre_norm_layer(attention, reading.mlp(index, **mlp), reading.norm)


def llama_layer(reading: Reading, index: int) -> Layer:
    """Return a layer of a Llama, or of a Mixtral, which has experts."""
    if not reading.metadata.get("expert_count"):
        return plain_layer(reading, index)
    moe = _experts(reading, reading.channels[index])
    return pre_norm_layer(reading.attention(index), moe, reading.norm)


def qwen3_moe_layer(reading: Reading, index: int) -> Layer:
    """Return a layer of Qwen3-MoE."""
    normed = QkNorm(eps=reading.norm.eps)
    return pre_norm_layer(reading.attention(index, qk_norm=normed), _experts(reading), reading.norm)


def _experts(reading: Reading, channels: int | None = None) -> Moe:
    """Return the experts of a layer: llama.cpp always divides the chosen ones' weights by their sum.

    Args:
        reading: the model's metadata.
        channels: of each, where no key says it.
    """
    metadata = reading.metadata
    experts = metadata.number("expert_count")
    return Moe(
        experts=experts,
        chosen=metadata.number("expert_used_count", most=experts),
        channels=metadata.number(EXPERT_CHANNELS, channels),
    )


def gemma2_layer(reading: Reading, index: int) -> Layer:
    """Return a layer of Gemma 2."""
    attention = reading.attention(
        index,
        window=reading.windows(4096, 2)[index],
        scale=_score_factor(reading),
        softcap=reading.metadata.positive(SCORE_CAP, 50.0),
    )
    return four_norm_layer(attention, reading.mlp(index, activation="gelu_tanh"), reading.norm)


def gemma3_layer(reading: Reading, index: int) -> Layer:
    """Return a layer of Gemma 3; those that slide have positions of their own, which nothing scales."""
    window = reading.windows(None, 6)[index]
    sliding = Rope(theta=reading.metadata.positive(SLIDING_THETA, 10000.0))
    attention = reading.attention(
        index,
        window=window,
        rope=reading.rope if window is None else sliding,
        scale=_score_factor(reading),
        qk_norm=QkNorm(eps=reading.norm.eps),
    )
    return four_norm_layer(attention, reading.mlp(index, activation="gelu_tanh"), reading.norm)


def gemma_head(reading: Reading, default: float | None) -> LmHead:
    """Return the head of Gemma 2 or 3: 0 stands for no cap."""
    given = reading.metadata.get(LOGIT_CAP)
    if given == 0 or (given is None and default is None):
        return LmHead()
    return LmHead(softcap=reading.metadata.positive(LOGIT_CAP, default))


def phi3_layer(reading: Reading, index: int) -> Layer:
    """Return a layer of Phi-3, whose layers all slide if any does."""
    window = reading.metadata.get(WINDOW) and reading.metadata.number(WINDOW)
    return pre_norm_layer(reading.attention(index, window=window or None), reading.mlp(index), reading.norm)


def lfm2_layer(reading: Reading, index: int) -> Layer:
    """Return a layer of LFM2: one without heads of keys and values has a short convolution."""
    first: OpSpec = ShortConv(channels=reading.width, kernel=reading.metadata.number(KERNEL))
    if reading.groups[index]:
        first = reading.attention(index, qk_norm=QkNorm(eps=reading.norm.eps))
    return tuple(
        Sublayer.model_validate({"op": op, "pre_norm": reading.norm}) for op in (first, reading.mlp(index))
    )


def _score_factor(reading: Reading) -> float:
    """Return the factor on the scores, which no key says: the number of layers tells the models apart."""
    wide = reading.layers == WIDE_GEMMAS[reading.metadata.model.architecture]
    return float((reading.width / reading.heads[0] if wide else reading.head_dim) ** -0.5)
