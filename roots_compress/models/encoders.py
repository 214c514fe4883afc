"""ROOTS models that read a whole text at once: for masked tokens, for labels, and for embeddings.

Shape legend: B batch, T tokens, N positions, W hidden size, V vocabulary, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput, SequenceClassifierOutput

from roots_compress.models.blocks.mlp import ACTIVATION_FUNCTIONS
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsWithHead, RootsWithVocabulary
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead, MaskedLmHead, Pooling
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

    def forward(self, states_NW: Tensor) -> Tensor:
        """Return what the vocabulary's matrix reads, `NW`."""
        normed_NW: Tensor = self.norm(self.activation(self.dense(states_NW)))
        return normed_NW


class RootsForMaskedLM(RootsWithVocabulary):
    """A ROOTS encoder that predicts the token at each place."""

    head_kind = "masked_lm"

    def add_head(self, config: RootsConfig) -> None:
        """Add the transform, then the vocabulary's matrix."""
        assert isinstance(config.spec.head, MaskedLmHead)
        self.transform = MaskedLmTransform(config.spec.head, config.hidden_size, config.spec.embeddings)
        super().add_head(config)

    @property
    def head_norm(self) -> str | None:
        """The transform's."""
        return "transform.norm"

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None]:
        """The vocabulary's matrix, and the bias of its logits."""
        assert self.lm_head is not None, "a quantized head has no gradient"
        return self.lm_head.get_parameter("weight"), self.transform.bias

    def head_input(self, states_NW: Tensor) -> Tensor:
        """Return what the transform gives."""
        read_NW: Tensor = self.transform(states_NW)
        return read_NW

    def bounded(self, logits_NV: Tensor) -> Tensor:
        """Return the logits with their bias."""
        return logits_NV + self.transform.bias

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> MaskedLMOutput:
        """Return logits `BTV`; with `labels` (`BT`, -100: not scored) the mean cross-entropy too."""
        hidden_BTW = self.model(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **others
        ).last_hidden_state
        logits_BTV = self.project(hidden_BTW)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits_BTV)


class RootsWithTextHead(RootsWithHead):
    """A ROOTS encoder that answers once a text, of its pooled states."""

    @property
    def pooling(self) -> Pooling:
        """How a text's states become one."""
        head = self.config.spec.head
        assert isinstance(head, ClassificationHead | EmbeddingHead)
        return head.pooling

    def reads(self, input_ids_BT: Tensor, segment_ids_BT: Tensor | None = None) -> Tensor:
        """Return where texts begin, `BT`."""
        if segment_ids_BT is None:
            segment_ids_BT = torch.zeros_like(input_ids_BT)
        return F.pad(segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1], (1, 0), value=True)

    def pooled(self, hidden_BTW: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return what the head works on of each text, `BW`, from its final hidden states."""
        if self.pooling == "first":
            return self.sized(hidden_BTW[:, 0])
        mask_BT1 = torch.ones_like(hidden_BTW[..., :1])
        if attention_mask is not None:
            mask_BT1 = attention_mask[..., None].to(hidden_BTW.dtype)
        return self.sized((hidden_BTW * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1e-9))

    def states_at(self, hidden_BTW: Tensor, places_BT: Tensor, segment_ids_BT: Tensor) -> Tensor:
        """Return at some positions the pooled states of the texts that they are in, `NW`."""
        own_BTT = (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]).to(hidden_BTW.dtype)
        if self.pooling == "first":
            own_BTT = F.one_hot(own_BTT.argmax(dim=-1), own_BTT.shape[-1]).to(hidden_BTW.dtype)
        pooled_BTW = own_BTT @ hidden_BTW / own_BTT.sum(dim=-1, keepdim=True)
        return self.sized(pooled_BTW[places_BT])

    def sized(self, vectors_NW: Tensor) -> Tensor:
        """Return pooled states in the length that the head wants."""
        return vectors_NW

    def texts(self, hidden_BTW: Tensor, attention_mask: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        """Return what the head works on of each text, `NW`, of packed windows text by text."""
        if segment_ids is None:
            return self.pooled(hidden_BTW, attention_mask)
        return self.states_at(hidden_BTW, self.reads(hidden_BTW[..., 0], segment_ids), segment_ids)


class RootsForSequenceClassification(RootsWithTextHead):
    """A ROOTS encoder that gives each text a label."""

    head_kind = "classification"

    def add_head(self, config: RootsConfig) -> None:
        """Add the dense layer of a text's pooled states, its norm, and the labels' matrix."""
        head, width = config.spec.head, config.hidden_size
        assert isinstance(head, ClassificationHead)
        self.dense = nn.Linear(width, width, bias=head.dense_bias)
        self.norm: nn.Module | None = None
        if head.eps is not None:
            self.norm = nn.LayerNorm(width, eps=head.eps, bias=head.norm_bias)
        self.classifier = nn.Linear(width, head.labels)
        self.activation: Callable[[Tensor], Tensor] = (
            torch.tanh if head.activation == "tanh" else ACTIVATION_FUNCTIONS[head.activation]
        )

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None]:
        """The labels' matrix and bias."""
        return self.classifier.weight, self.classifier.bias

    @property
    def outcomes(self) -> int:
        """The labels."""
        return int(self.classifier.out_features)

    def head_input(self, states_NW: Tensor) -> Tensor:
        """Return what the labels' matrix reads, for pooled states."""
        active_NW = self.activation(self.dense(states_NW))
        return active_NW if self.norm is None else self.norm(active_NW)

    def bounded(self, logits_NV: Tensor) -> Tensor:
        """Return the logits with their bias."""
        return logits_NV + self.classifier.bias

    def project(self, states_NW: Tensor) -> Tensor:
        """Return the logits `NL` of pooled states."""
        logits_NL: Tensor = self.classifier(self.head_input(states_NW))
        return logits_NL

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        segment_ids: Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Return logits `BL`, of packed windows those of each text; with `labels` (`B`) the loss too."""
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            segment_ids=segment_ids,
            **others,
        )
        logits_BL = self.project(self.texts(output.last_hidden_state, attention_mask, segment_ids))
        loss = None if labels is None else F.cross_entropy(logits_BL.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BL)


class RootsForEmbedding(RootsWithTextHead):
    """A ROOTS encoder that gives each text a vector."""

    head_kind = "embedding"

    @property
    def head(self) -> EmbeddingHead:
        """How a text's states become its vector."""
        head = self.config.spec.head
        assert isinstance(head, EmbeddingHead)
        return head

    @property
    def outcomes(self) -> int:
        """The channels of a vector."""
        return int(self.config.hidden_size)

    def sized(self, vectors_NW: Tensor) -> Tensor:
        """Return vectors of length 1, where the head is to give such."""
        return F.normalize(vectors_NW, dim=-1) if self.head.normalised else vectors_NW

    def project(self, states_NW: Tensor) -> Tensor:
        """Return vectors as they are."""
        return states_NW

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        **others: Any,
    ) -> BaseModelOutput:
        """Return one vector for each text, `BW`, of packed windows too, as `last_hidden_state`."""
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            segment_ids=segment_ids,
            **others,
        )
        vectors_BW = self.texts(output.last_hidden_state, attention_mask, segment_ids)
        return BaseModelOutput(last_hidden_state=vectors_BW)


MODELS: dict[str, type[RootsWithHead]] = {
    each.head_kind: each
    for each in (
        RootsForCausalLM,
        RootsForMaskedLM,
        RootsForSequenceClassification,
        RootsForEmbedding,
        RootsForSeq2SeqLM,
    )
}
"""The class of model by the kind of its head."""


def make_model(config: RootsConfig) -> RootsWithHead:
    """Return an untrained model of a configuration."""
    return MODELS[config.spec.head.kind](config)


AutoModelForMaskedLM.register(RootsConfig, RootsForMaskedLM)
AutoModelForSequenceClassification.register(RootsConfig, RootsForSequenceClassification)
