"""The base of all heads, of heads with one output a text, and of heads with a matrix over the vocabulary.

A head is a function of states at positions, `bounded(head_input(states) @ weight.T)`. Losses and teachers
use nothing else of it.

Shape legend: B batch, T tokens, N positions, W hidden size, V outputs of the head.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from roots_compress.models.config import RootsConfig
from roots_compress.models.quantized import QuantizedEmbedding, make_linear
from roots_compress.models.relative import valid_slots
from roots_compress.models.spec import HEAD
from roots_compress.models.stack import RootsModel, RootsPreTrainedModel


class RootsWithHead(RootsPreTrainedModel):
    """A ROOTS model with its head.

    Raises:
        ValueError: the configuration's head is of another kind.
    """

    head_kind: ClassVar[str]
    """The kind of heads (`models/ops/heads.py`) that the class is for."""

    def __init__(self, config: RootsConfig) -> None:
        kind = config.spec.head.kind
        if kind != self.head_kind:
            # Otherwise its own weights would be left out and replaced by random ones.
            raise ValueError(
                f"{type(self).__name__} is for heads of the kind '{self.head_kind}', and the model's is of "
                f"the kind '{kind}': load it by the class for that kind "
                "(docs/reference/families.md lists them)"
            )
        super().__init__(config)
        self.model = RootsModel(config)
        self.add_head(config)
        self.post_init()

    @property
    def head(self) -> Any:
        """The head as data, of the kind `head_kind`."""
        return self.config.spec.head

    def add_head(self, config: RootsConfig) -> None:
        """Add the head's modules."""

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers by name, a tied one by its first name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    @property
    def head_norm(self) -> str | None:
        """The name of the norm whose output the head's matrix reads; None if there is none."""
        return None

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None] | None:
        """The head's matrix `VW` in float, and the bias `V` of `bounded` if it has one.

        None for a head of vectors or scores instead of probabilities: `head_input` returns these.
        """
        return None

    @property
    def outcomes(self) -> int:
        """V: the number of logits at a position, or channels of a vector."""
        raise NotImplementedError

    def distance(self, given_NV: Tensor, wanted_NV: Tensor) -> Tensor:
        """Return the distance of vectors or scores from a teacher's, `N`; not for probabilities."""
        raise NotImplementedError

    def states_at(self, hidden_BTW: Tensor, places_BT: Tensor, segment_ids_BT: Tensor) -> Tensor:
        """Return the head's input states at some positions, `NW`: their own final hidden states.

        Args:
            hidden_BTW: final hidden states of packed windows.
            places_BT: True at the positions.
            segment_ids_BT: number of each position's text in its window.
        """
        return hidden_BTW[places_BT]

    def reads(self, input_ids_BT: Tensor, segment_ids_BT: Tensor | None = None) -> Tensor:
        """Return the positions of packed windows where the head predicts, `BT`: all of them.

        A head with one output a text predicts where the text begins.
        """
        return torch.ones_like(input_ids_BT, dtype=torch.bool)

    def head_input(self, states_NW: Tensor) -> Tensor:
        """Return the input of the head's matrix, for final hidden states at any positions."""
        return states_NW

    def bounded(self, logits_NV: Tensor) -> Tensor:
        """Return the logits for the output of the head's matrix."""
        raise NotImplementedError

    def project(self, states_NW: Tensor) -> Tensor:
        """Return the head's output for final hidden states at any positions."""
        raise NotImplementedError


class RootsWithTextHead(RootsWithHead):
    """A ROOTS encoder with one output a text, from its pooled states."""

    def reads(self, input_ids_BT: Tensor, segment_ids_BT: Tensor | None = None) -> Tensor:
        if segment_ids_BT is None:
            segment_ids_BT = torch.zeros_like(input_ids_BT)
        return F.pad(segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1], (1, 0), value=True)

    def pooled(self, hidden_BTW: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return each text's pooled state, `BW`, from its final hidden states."""
        if self.head.pooling == "first":
            return self.sized(hidden_BTW[:, 0])
        if self.head.pooling == "last":
            batch, tokens = hidden_BTW.shape[:2]
            valid_BT = valid_slots(batch, tokens, attention_mask, hidden_BTW.device)
            return self.sized(hidden_BTW[torch.arange(batch, device=valid_BT.device), last_place(valid_BT)])
        mask_BT1 = torch.ones_like(hidden_BTW[..., :1])
        if attention_mask is not None:
            mask_BT1 = attention_mask[..., None].to(hidden_BTW.dtype)
        return self.sized((hidden_BTW * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1e-9))

    def states_at(self, hidden_BTW: Tensor, places_BT: Tensor, segment_ids_BT: Tensor) -> Tensor:
        """Return the pooled states of the texts at some positions, `NW`."""
        own_BTT = (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]).to(hidden_BTW.dtype)
        if self.head.pooling != "mean":
            rows_N, places_N = places_BT.nonzero(as_tuple=True)
            found_BT = own_BTT.argmax(dim=-1) if self.head.pooling == "first" else last_place(own_BTT)
            return self.sized(hidden_BTW[rows_N, found_BT[rows_N, places_N]])
        pooled_BTW = own_BTT @ hidden_BTW / own_BTT.sum(dim=-1, keepdim=True)
        return self.sized(pooled_BTW[places_BT])

    def sized(self, vectors_NW: Tensor) -> Tensor:
        """Return pooled states in their final size, before the head's other layers."""
        return vectors_NW

    def texts(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        segment_ids: Tensor | None,
        **others: Any,
    ) -> Tensor:
        """Run the model, and return the pooled state of each text, `NW`; in windows, text by text."""
        hidden_BTW = self.model(
            input_ids, attention_mask=attention_mask, segment_ids=segment_ids, **others
        ).last_hidden_state
        if segment_ids is None:
            return self.pooled(hidden_BTW, attention_mask)
        return self.states_at(hidden_BTW, self.reads(hidden_BTW[..., 0], segment_ids), segment_ids)


class RootsByToken(RootsWithHead):
    """A ROOTS encoder with an output for each token."""

    output_class: ClassVar[type[ModelOutput]]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> ModelOutput:
        """Return logits `BTV`; with `labels` (`BT`, -100: not scored) the mean cross-entropy too."""
        hidden_BTW = self.model(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **others
        ).last_hidden_state
        logits_BTV = self.project(hidden_BTW)
        return self.output_class(loss=token_loss(logits_BTV, labels), logits=logits_BTV)


class RootsWithVocabulary(RootsWithHead):
    """A ROOTS model whose head has a matrix as large as the embedding."""

    _tied_weights_keys: dict[str, str] = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def add_head(self, config: RootsConfig) -> None:
        """Add the vocabulary's matrix, or share the embedding's quantized table with the head."""
        self.lm_head: nn.Module | None = None
        if config.tie_word_embeddings and isinstance(self.model.embed_tokens, QuantizedEmbedding):
            # A quantized table has no parameter to tie, so the head calls the table itself.
            self._tied_weights_keys = {}
        else:
            self.lm_head = make_linear(config, HEAD, config.table_width, config.vocab_size, False)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the vocabulary's matrix; None if the quantized embedding serves as one."""
        return self.lm_head

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None]:
        assert self.lm_head is not None, "a quantized head has no gradient"
        return self.lm_head.get_parameter("weight"), None

    @property
    def outcomes(self) -> int:
        return int(self.config.vocab_size)

    def project(self, states_NW: Tensor) -> Tensor:
        head = self.lm_head if self.lm_head is not None else self.model.embed_tokens.multiply
        return self.bounded(head(self.head_input(states_NW)))


class RootsForNextToken(RootsWithVocabulary):
    """A ROOTS model whose decoder predicts the next token."""

    def add_head(self, config: RootsConfig) -> None:
        super().add_head(config)
        if self.head.bias:
            self.logits_bias = nn.Parameter(torch.zeros(config.vocab_size))

    @property
    def head_norm(self) -> str | None:
        return None if self.config.spec.stack.final_norm is None else "model.norm"

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None]:
        return super().head_matrix[0], self.logits_bias if self.head.bias else None

    def bounded(self, logits_NV: Tensor) -> Tensor:
        logits_NV = logits_NV * self.head.scale if self.head.scale != 1 else logits_NV
        return logits_NV + self.logits_bias if self.head.bias else logits_NV


def last_place(chosen_xT: Tensor) -> Tensor:
    """Return the index of the last nonzero entry in each row, `x`; the last index if all are 0."""
    return chosen_xT.shape[-1] - 1 - chosen_xT.flip(-1).to(torch.uint8).argmax(dim=-1)


def token_loss(logits_BTV: Tensor, labels_BT: Tensor | None) -> Tensor | None:
    """Return the mean cross-entropy of labels, each at its own position; -100 is not scored."""
    if labels_BT is None:
        return None
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels_BT.flatten())
