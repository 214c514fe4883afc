"""The ROOTS encoder-decoder, as transformers loads, runs and saves it.

Shape legend: B batch, S tokens of the source, T of the target, N positions, W hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from roots_compress.data.windows import START
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsForNextToken, token_loss
from roots_compress.models.ops.heads import Seq2SeqHead


class EncoderForGeneration(nn.Module):
    """A model's encoder in the form that transformers' generation calls, with the model's embedding."""

    main_input_name = "input_ids"

    def __init__(self, model: RootsForSeq2SeqLM) -> None:
        super().__init__()
        # Not registered as submodules: they belong to the model.
        self._encode = model.encode

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """Return the encoder's output."""
        return BaseModelOutput(last_hidden_state=self._encode(input_ids, attention_mask))


class RootsForSeq2SeqLM(RootsForNextToken, GenerationMixin):
    """A ROOTS encoder, and a decoder that predicts the next token of another text from its output."""

    head_kind = "seq2seq_lm"
    head: Seq2SeqHead

    def __init__(self, config: RootsConfig) -> None:
        super().__init__(config)
        assert self.generation_config is not None
        self.generation_config.decoder_start_token_id = self.head.start

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the encoder's output for sources, `BSW`."""
        states_BSW: Tensor = self.model.encode(input_ids, attention_mask=attention_mask)
        return states_BSW

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the encoder, for transformers' generation."""
        return EncoderForGeneration(self)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder's input for labels: the start token, then all labels but the last."""
        pad = self.config.pad_token_id or 0
        started = F.pad(labels[:, :-1], (1, 0), value=START)
        read_BT: Tensor = self.model.started(started.masked_fill(started == -100, pad))
        return read_BT

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        segment_ids: Tensor | None = None,
        decoder_segment_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Return the logits `BTV` of the target's tokens.

        Args:
            input_ids: `BS`, the source.
            attention_mask: `BS`, 0 at padding.
            decoder_input_ids: `BT`, the target from its start token on.
            decoder_attention_mask: `BT`, with cached tokens before them, 0 at padding.
            encoder_outputs: the encoder's, first `BSW`; it is then not run.
            past_key_values: keys and values of earlier tokens and of the source; extended in place.
            labels: `BT`, the expected tokens, -100 where nothing is scored. They give the mean cross-entropy,
                and the decoder's input if `decoder_input_ids` are absent.
            use_cache: whether to return keys and values.
            segment_ids: `BS` numbers of packed sources.
            decoder_segment_ids: `BT` those of their targets.
            output_hidden_states: also return the decoder's residual stream.
        """
        if decoder_input_ids is None and labels is not None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            encoder_states=None if encoder_outputs is None else encoder_outputs[0],
            use_cache=use_cache,
            segment_ids=segment_ids,
            decoder_segment_ids=decoder_segment_ids,
            output_hidden_states=output_hidden_states,
        )
        logits_BTV = self.project(output.last_hidden_state)
        return Seq2SeqLMOutput(
            loss=token_loss(logits_BTV, labels),
            logits=logits_BTV,
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.hidden_states,
        )


AutoModelForSeq2SeqLM.register(RootsConfig, RootsForSeq2SeqLM)
