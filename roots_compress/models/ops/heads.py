"""Heads as data: the outputs that a model computes from the last hidden states."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.models.ops.base import LARGEST, Count, Part, Positive
from roots_compress.models.ops.mlp import Activation

Pooling = Literal["mean", "first", "last"]
"""Pooling of a text's states: the mean, or the first or last token's."""


class HeadPart(Part):
    """The interface of all heads."""

    predicts_tokens: ClassVar[bool] = False
    """Whether the head has a matrix as large as the embedding."""

    def parameters(self, width: int, tables: int, vocabulary: int) -> int:
        """Return the number of parameters, without a matrix as large as the embedding.

        Args:
            tables: channels of the embedding.
            vocabulary: its rows.
        """
        return 0


class NextTokenHead(HeadPart):
    """Logits of the next token."""

    predicts_tokens: ClassVar[bool] = True
    scale: Positive = 1.0
    """Factor on the matrix's output."""
    bias: bool = False
    """Whether the logits have a bias, after the factor."""

    def parameters(self, width: int, tables: int, vocabulary: int) -> int:
        return vocabulary if self.bias else 0


class LmHead(NextTokenHead):
    """Logits of the next token of a text."""

    kind: Literal["lm"] = "lm"
    softcap: Positive | None = None
    """c of `c * tanh(logit / c)`, applied last."""


class Seq2SeqHead(NextTokenHead):
    """Logits of the next token of a text, given another text that an encoder has read."""

    kind: Literal["seq2seq_lm"] = "seq2seq_lm"
    start: Annotated[int, Field(ge=0, le=LARGEST)]
    """The token with which the decoder begins."""


class MaskedLmHead(HeadPart):
    """Logits of the token at each position: a dense layer, its activation, a layer norm; with a bias."""

    kind: Literal["masked_lm"] = "masked_lm"
    predicts_tokens: ClassVar[bool] = True
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    """Of the norm."""
    dense_bias: bool = True
    """Whether the dense layer has one."""
    norm_bias: bool = True
    """Whether the norm has one."""

    def parameters(self, width: int, tables: int, vocabulary: int) -> int:
        return tables * (width + 1 + self.dense_bias + self.norm_bias) + vocabulary


class LabelHead(HeadPart):
    """Logits of labels, from states, with an optional dense layer, activation and norm before."""

    labels: Annotated[int, Field(ge=2, le=LARGEST)]
    names: tuple[str, ...] | None = None
    """Names of the labels, by number; None if they have none."""
    activation: Activation | Literal["tanh"] | None = None
    """Activation after a dense layer; None if there is no such layer."""
    dense_bias: bool = True
    """Whether the dense layer has one."""
    eps: Positive | None = None
    """Epsilon of a layer norm after the activation; None if there is none."""
    norm_bias: bool = True
    """Whether the norm has one."""
    bias: bool = True
    """Whether the labels' matrix has one."""

    @model_validator(mode="after")
    def _names_tell_labels_apart(self) -> Self:
        if self.names is None:
            return self
        if len(self.names) != self.labels:
            raise ValueError(f"names has {len(self.names)} names for {self.labels} labels")
        for name, count in Counter(self.names).items():
            if count > 1 or not name.strip():
                raise ValueError(f"names has {name!r:.60}, which is blank or the name of two labels")
        return self

    def parameters(self, width: int, tables: int, vocabulary: int) -> int:
        dense = 0 if self.activation is None else width * (width + self.dense_bias)
        norm = 0 if self.eps is None else width * (1 + self.norm_bias)
        return dense + norm + self.labels * (width + self.bias)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names, or transformers' default names."""
        return self.names or tuple(f"LABEL_{number}" for number in range(self.labels))


class TextLabelHead(LabelHead):
    """Logits of each text, from its pooled states."""

    pooling: Pooling = "first"
    activation: Activation | Literal["tanh"] | None = "tanh"


class ClassificationHead(TextLabelHead):
    """Logits of the label of each text."""

    kind: Literal["classification"] = "classification"


class ScoreHead(TextLabelHead):
    """A score of each text, or of each pair of texts."""

    kind: Literal["score"] = "score"
    labels: Annotated[int, Field(ge=1, le=1)] = 1
    sigmoid: bool = True
    """Whether sentence-transformers applies the sigmoid. The model and its graph return the score before
    it."""


class TokenClassificationHead(LabelHead):
    """Logits of the label of each token."""

    kind: Literal["token_classification"] = "token_classification"


class EmbeddingHead(HeadPart):
    """One vector for each text, from the hidden states of its tokens."""

    kind: Literal["embedding"] = "embedding"
    pooling: Pooling = "mean"
    outputs: Count | None = None
    """Channels of a dense layer after pooling; None if there is no such layer."""
    dense_bias: bool = True
    """Whether that layer has a bias."""
    activation: Literal["tanh"] | None = None
    """Activation after that layer."""
    normalised: bool = True
    """Whether vectors have length 1."""

    @model_validator(mode="after")
    def _dense_is_whole(self) -> Self:
        if self.outputs is None and (self.activation is not None or not self.dense_bias):
            raise ValueError("activation and dense_bias are of the dense layer that outputs asks for")
        return self

    def parameters(self, width: int, tables: int, vocabulary: int) -> int:
        """Count the dense layer."""
        return 0 if self.outputs is None else self.outputs * (width + self.dense_bias)

    def channels(self, width: int) -> int:
        """Return the length of a vector for states of this width."""
        return width if self.outputs is None else self.outputs
