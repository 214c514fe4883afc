"""The ROOTS decoder that predicts the next token, as transformers loads, runs and saves it.

Shape legend: B batch, T new tokens, N positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsForNextToken
from roots_compress.models.limits import longrope_length


class RootsForCausalLM(RootsForNextToken, GenerationMixin):
    """A ROOTS model that predicts the next token."""

    head_kind = "lm"

    def bounded(self, logits_NV: Tensor) -> Tensor:
        """Return the logits for the output of the head's matrix: scaled, with their bias, and softcapped."""
        logits_NV, cap = super().bounded(logits_NV), self.config.spec.lm_head.softcap
        return logits_NV if cap is None else cap * torch.tanh(logits_NV / cap)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the next inputs of `forward`: the whole text again when LongRoPE's factors change."""
        length, past = longrope_length(self.config.spec), kwargs.get("past_key_values")
        held = 0 if past is None else past.get_seq_length()
        if length is not None and 0 < held <= length < input_ids.shape[1]:
            kwargs |= {"past_key_values": None, "next_sequence_length": None}
        parent: Any = super()
        return parent.prepare_inputs_for_generation(input_ids, *args, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        segment_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits `BTV`; only of the last `logits_to_keep` tokens if that is above 0.

        With `labels` (`BT`, -100 where nothing is scored) the loss is the mean cross-entropy of each label
        given the tokens before it. The other arguments are those of `RootsModel`.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            segment_ids=segment_ids,
            output_hidden_states=output_hidden_states,
        )
        hidden_BTW = output.last_hidden_state
        if logits_to_keep:
            hidden_BTW = hidden_BTW[:, -logits_to_keep:]
        logits_BTV = self.project(hidden_BTW)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
        )


AutoModelForCausalLM.register(RootsConfig, RootsForCausalLM)
