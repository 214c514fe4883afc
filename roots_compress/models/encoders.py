"""ROOTS encoders for masked tokens and for embeddings, and the classes of all models by their heads.

Shape legend: B batch, T tokens, N positions, W hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from roots_compress.models.blocks.mlp import ACTIVATION_FUNCTIONS
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsByToken, RootsWithHead, RootsWithTextHead, RootsWithVocabulary
from roots_compress.models.labels import (
    RootsForScore,
    RootsForSequenceClassification,
    RootsForTokenClassification,
)
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.heads import EmbeddingHead, MaskedLmHead
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.models.spec import Embeddings


class MaskedLmTransform(nn.Module):
    """A dense layer, its activation and a norm, before the vocabulary's matrix; and the logits' bias."""

    def __init__(self, spec: MaskedLmHead, width: int, embeddings: Embeddings) -> None:
        super().__init__()
        read = embeddings.table_width
        self.dense = nn.Linear(width, read, bias=spec.dense_bias)
        self.norm = nn.LayerNorm(read, eps=spec.eps, bias=spec.norm_bias)
        self.bias = nn.Parameter(torch.zeros(embeddings.vocabulary))
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]

    def forward(self, values: Tensor, *, add_bias: bool = False) -> Tensor:
        """Return the input of the vocabulary's matrix, `NW`, for states; or logits `NV` plus their bias.

        The bias is added here, not by the model: if weights are on disk, a bias is in memory only while its
            module runs.
        """
        if add_bias:
            return values + self.bias
        normed_NW: Tensor = self.norm(self.activation(self.dense(values)))
        return normed_NW


class RootsForMaskedLM(RootsByToken, RootsWithVocabulary):
    """A ROOTS encoder that predicts the token at each position."""

    head_kind = "masked_lm"
    output_class = MaskedLMOutput

    def add_head(self, config: RootsConfig) -> None:
        self.transform = MaskedLmTransform(self.head, config.hidden_size, config.spec.embeddings)
        super().add_head(config)

    @property
    def head_norm(self) -> str | None:
        return "transform.norm"

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None]:
        assert self.lm_head is not None, "a quantized head has no gradient"
        return self.lm_head.get_parameter("weight"), self.transform.bias

    def head_input(self, states_NW: Tensor) -> Tensor:
        read_NW: Tensor = self.transform(states_NW)
        return read_NW

    def bounded(self, logits_NV: Tensor) -> Tensor:
        biased_NV: Tensor = self.transform(logits_NV, add_bias=True)
        return biased_NV


class RootsForEmbedding(RootsWithTextHead):
    """A ROOTS encoder that gives each text a vector."""

    head_kind = "embedding"
    head: EmbeddingHead

    def add_head(self, config: RootsConfig) -> None:
        """Add the dense layer after pooling, if there is one."""
        head, width = self.head, config.hidden_size
        self.dense: nn.Module | None = None
        if head.outputs is not None:
            self.dense = nn.Linear(width, head.outputs, bias=head.dense_bias)

    @property
    def outcomes(self) -> int:
        return self.head.channels(self.config.hidden_size)

    def sized(self, vectors_NW: Tensor) -> Tensor:
        """Apply the dense layer and the normalisation to length 1, if the head has them."""
        if self.dense is not None:
            vectors_NW = self.dense(vectors_NW)
            vectors_NW = torch.tanh(vectors_NW) if self.head.activation == "tanh" else vectors_NW
        return F.normalize(vectors_NW, dim=-1) if self.head.normalised else vectors_NW

    def distance(self, given_NV: Tensor, wanted_NV: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(given_NV.float(), wanted_NV.float(), dim=-1)

    def project(self, states_NW: Tensor) -> Tensor:
        return states_NW

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        **others: Any,
    ) -> BaseModelOutput:
        """Return one vector for each text, `BW`, also of packed windows, as `last_hidden_state`."""
        vectors_BW = self.texts(
            input_ids, attention_mask, segment_ids, token_type_ids=token_type_ids, **others
        )
        return BaseModelOutput(last_hidden_state=vectors_BW)


MODELS: dict[str, type[RootsWithHead]] = {
    each.head_kind: each
    for each in (
        RootsForCausalLM,
        RootsForMaskedLM,
        RootsForSequenceClassification,
        RootsForScore,
        RootsForTokenClassification,
        RootsForEmbedding,
        RootsForSeq2SeqLM,
    )
}
"""The class of model by the kind of its head."""


def make_model(config: RootsConfig) -> RootsWithHead:
    """Return an untrained model of a configuration."""
    return MODELS[config.spec.head.kind](config)


AutoModelForMaskedLM.register(RootsConfig, RootsForMaskedLM)
