"""What a model ends with, as data: what is made of the last hidden states."""

from __future__ import annotations

from typing import Literal

from roots_compress.models.ops.base import Count, Part, Positive
from roots_compress.models.ops.mlp import Activation


class LmHead(Part):
    """Logits of the next token."""

    kind: Literal["lm"] = "lm"
    scale: Positive = 1.0
    """Factor on the logits."""
    softcap: Positive | None = None
    """c of `c * tanh(logit / c)`, after the factor."""


class MaskedLmHead(Part):
    """Logits of the token at each place: of a dense layer, its activation and a layer norm, with a bias."""

    kind: Literal["masked_lm"] = "masked_lm"
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    """Of the norm."""


class ClassificationHead(Part):
    """Logits of labels: of the first token's state through a dense layer and its activation."""

    kind: Literal["classification"] = "classification"
    labels: Count
    activation: Literal["tanh", "relu"] = "tanh"


class EmbeddingHead(Part):
    """One vector for each text: of the hidden states of its tokens."""

    kind: Literal["embedding"] = "embedding"
    pooling: Literal["mean", "first"] = "mean"
    normalised: bool = True
    """Whether vectors have length 1."""
