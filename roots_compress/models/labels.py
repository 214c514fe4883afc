"""ROOTS encoders that label texts or tokens.

Shape legend: B batch, T tokens, N positions, W hidden size, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from roots_compress.models.blocks.mlp import ACTIVATION_FUNCTIONS
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsByToken, RootsWithHead, RootsWithTextHead
from roots_compress.models.ops.heads import ScoreHead


class RootsWithLabels(RootsWithHead):
    """A ROOTS encoder with a matrix over labels."""

    def add_head(self, config: RootsConfig) -> None:
        """Add the dense layer and its norm, if any, and the labels' matrix."""
        head, width = self.head, config.hidden_size
        self.dense: nn.Module | None = None
        self.norm: nn.Module | None = None
        if head.activation is not None:
            self.dense = nn.Linear(width, width, bias=head.dense_bias)
            self.activation: Callable[[Tensor], Tensor] = (
                torch.tanh if head.activation == "tanh" else ACTIVATION_FUNCTIONS[head.activation]
            )
        if head.eps is not None:
            self.norm = nn.LayerNorm(width, eps=head.eps, bias=head.norm_bias)
        self.classifier = nn.Linear(width, head.labels, bias=head.bias)

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None] | None:
        return self.classifier.weight, self.classifier.bias

    @property
    def outcomes(self) -> int:
        return int(self.classifier.out_features)

    def head_input(self, states_NW: Tensor) -> Tensor:
        read_NW = states_NW if self.dense is None else self.activation(self.dense(states_NW))
        return read_NW if self.norm is None else self.norm(read_NW)

    def bounded(self, logits_NV: Tensor) -> Tensor:
        return logits_NV if self.classifier.bias is None else logits_NV + self.classifier.bias

    def project(self, states_NW: Tensor) -> Tensor:
        logits_NL: Tensor = self.classifier(self.head_input(states_NW))
        return logits_NL


class RootsForSequenceClassification(RootsWithLabels, RootsWithTextHead):
    """A ROOTS encoder that gives each text a label."""

    head_kind = "classification"

    def label_loss(self, logits_BL: Tensor, labels_B: Tensor) -> Tensor:
        """Return the mean cross-entropy of the labels."""
        return F.cross_entropy(logits_BL, labels_B)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        segment_ids: Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Return logits `BL`, for packed windows those of each text; with `labels` (`B`) the loss too."""
        logits_BL = self.project(
            self.texts(input_ids, attention_mask, segment_ids, token_type_ids=token_type_ids, **others)
        )
        loss = None if labels is None else self.label_loss(logits_BL.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BL)


class RootsForScore(RootsForSequenceClassification):
    """A ROOTS encoder that gives each text, or each pair of texts, a score."""

    head_kind = "score"
    head: ScoreHead

    @property
    def head_matrix(self) -> None:
        """None: a score is not a probability."""
        return

    def label_loss(self, logits_BL: Tensor, labels_B: Tensor) -> Tensor:
        """Return the squared error of the scores, or the cross-entropy of probabilities."""
        if self.head.sigmoid:
            return F.binary_cross_entropy_with_logits(logits_BL[:, 0], labels_B.float())
        return F.mse_loss(logits_BL[:, 0], labels_B.float())

    def head_input(self, states_NW: Tensor) -> Tensor:
        return self.project(states_NW)

    def distance(self, given_NV: Tensor, wanted_NV: Tensor) -> Tensor:
        return (given_NV.float() - wanted_NV.float()).square().sum(dim=-1)

    def project(self, states_NW: Tensor) -> Tensor:
        scores_N1: Tensor = self.classifier(super().head_input(states_NW))
        return scores_N1


class RootsForTokenClassification(RootsByToken, RootsWithLabels):
    """A ROOTS encoder that gives each token a label."""

    head_kind = "token_classification"
    output_class = TokenClassifierOutput


AutoModelForSequenceClassification.register(RootsConfig, RootsForSequenceClassification)
AutoModelForTokenClassification.register(RootsConfig, RootsForTokenClassification)
