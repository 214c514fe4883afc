"""Embeddings, layers and the final norm: all of a ROOTS model but its head.

The layers are in `layer.py`, and their blocks in `blocks/`.

Shape legend: B batch, T new tokens, S all tokens (cached and new), W hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from roots_compress.models import attention
from roots_compress.models.blocks.base import Context, Sees, make_norm
from roots_compress.models.config import RootsConfig
from roots_compress.models.layer import RootsLayer
from roots_compress.models.quantized import make_embedding
from roots_compress.models.rotary import cos_sin, rotary_frequencies
from roots_compress.models.spec import EMBEDDING


class RootsPreTrainedModel(PreTrainedModel):
    """What transformers needs to know to load, save and initialise a ROOTS model."""

    config: RootsConfig
    config_class = RootsConfig
    base_model_prefix = "model"
    _no_split_modules = ["RootsLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012


class RootsModel(RootsPreTrainedModel):
    """Embeddings, layers and the final norm."""

    def __init__(self, config: RootsConfig) -> None:
        super().__init__(config)
        spec = config.spec
        self.embed_tokens = make_embedding(config, EMBEDDING)
        if spec.embeddings.positions is not None:
            self.embed_positions = nn.Embedding(spec.embeddings.positions, spec.width)
        if spec.embeddings.token_types is not None:
            self.embed_token_types = nn.Embedding(spec.embeddings.token_types, spec.width)
        if spec.embeddings.norm is not None:
            self.embed_norm = make_norm(spec.embeddings.norm, spec.width)
        self.layers = nn.ModuleList(RootsLayer(config, index) for index in range(len(spec.layers)))
        if spec.stack.final_norm is not None:
            self.norm = make_norm(spec.stack.final_norm, spec.width)
        # Kept outside the state dict, and in float32 whatever the weights' dtype.
        self._rotary = {
            (each.rope, each.head_dim): rotary_frequencies(each.rope, each.head_dim, spec.max_positions)
            for each in spec.attentions()
            if each.rope is not None
        }
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.embed_tokens

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        segment_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Run the stack.

        Args:
            input_ids: `BT` tokens.
            attention_mask: `BS`, 0 at padding; None where nothing is padded.
            position_ids: `BT`; derived from the mask where absent.
            past_key_values: keys and values of earlier tokens; extended in place.
            inputs_embeds: `BTW`, in place of `input_ids`.
            use_cache: whether to return keys and values for decoding; by default where nothing is trained.
            segment_ids: `BT` document numbers of packed windows; tokens attend within their document
                only, and positions restart at each. Not together with a cache.
            output_hidden_states: also return the residual stream after the embedding and after each layer.
            token_type_ids: `BT`; all 0 where absent.
        """
        embeds_BTW = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        batch, tokens, _width = embeds_BTW.shape
        if use_cache is None:
            caches = "decoder" in self.config.spec.stacks and self.config.use_cache
            use_cache = caches and not self.training and segment_ids is None
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if segment_ids is not None and past:
            raise ValueError("segment_ids are for packed training windows and cannot go on from a cache")

        valid_BS = self._valid(batch, past + tokens, attention_mask, embeds_BTW.device)
        positions_BS = self._positions(valid_BS, segment_ids)
        if position_ids is None:
            position_ids = positions_BS[:, past:]
        hidden_BTW = self._embedded(embeds_BTW, position_ids, token_type_ids)
        masked = attention_mask is not None or segment_ids is not None
        context = Context(
            self._views(tokens, valid_BS, positions_BS, segment_ids, masked=masked),
            {key: cos_sin(frequencies, position_ids) for key, frequencies in self._rotary.items()},
            past_key_values,
        )
        states = [hidden_BTW]
        for layer in self.layers:
            hidden_BTW = layer(hidden_BTW, context)
            if output_hidden_states:
                states.append(hidden_BTW)
        return BaseModelOutputWithPast(
            last_hidden_state=self.normed(hidden_BTW),
            past_key_values=past_key_values,
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def normed(self, hidden_BTW: Tensor) -> Tensor:
        """Return what the head reads, for the stream after the last layer."""
        norm = self.config.spec.stack.final_norm
        normed_BTW: Tensor = hidden_BTW if norm is None else self.norm(hidden_BTW)
        return normed_BTW

    @staticmethod
    def _valid(batch: int, slots: int, attention_mask: Tensor | None, device: torch.device) -> Tensor:
        """Return `valid_BS`, False at padding.

        Raises:
            ValueError: the mask does not cover the cached tokens and the new ones.
        """
        if attention_mask is None:
            return torch.ones((1, slots), dtype=torch.bool, device=device).expand(batch, -1)
        if attention_mask.shape != (batch, slots):
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; with the cached tokens it must be "
                f"{(batch, slots)}"
            )
        return attention_mask.bool()

    @staticmethod
    def _positions(valid_BS: Tensor, segment_ids: Tensor | None) -> Tensor:
        """Return the position of each slot within its document, padding not counted."""
        count_BS = valid_BS.long().cumsum(dim=1)
        if segment_ids is None:
            return (count_BS - 1).clamp(min=0)
        starts_BS = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
        before_BS = torch.where(starts_BS, count_BS - valid_BS.long(), 0).cummax(dim=1).values
        return (count_BS - before_BS - 1).clamp(min=0)

    def _embedded(self, embeds_BTW: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Return the residual stream before the first layer."""
        embeddings = self.config.spec.embeddings
        hidden_BTW = embeds_BTW * embeddings.scale if embeddings.scale != 1 else embeds_BTW
        if embeddings.token_types is not None:
            types_BT = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
            hidden_BTW = hidden_BTW + self.embed_token_types(types_BT)
        if embeddings.positions is not None:
            hidden_BTW = hidden_BTW + self.embed_positions(position_ids)
        return hidden_BTW if embeddings.norm is None else self.embed_norm(hidden_BTW)

    def _views(
        self,
        tokens: int,
        valid_BS: Tensor,
        positions_BS: Tensor,
        segment_ids: Tensor | None,
        *,
        masked: bool,
    ) -> dict[Sees, attention.View]:
        """Return which keys queries see, for every window of the model."""
        sees = {(each.window, each.causal) for each in self.config.spec.attentions()}
        return {
            (window, causal): attention.View(
                attention.Visibility(tokens, valid_BS, window, segment_ids, causal),
                positions_BS,
                masked=masked,
            )
            for window, causal in sees
        }


AutoConfig.register("roots", RootsConfig)
AutoModel.register(RootsConfig, RootsModel)
