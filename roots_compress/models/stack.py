"""Embeddings, layers (`layer.py`) and the final norm: a ROOTS model without its head.

Shape legend: B batch, T new tokens, S all tokens (cached and new), W hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from roots_compress.data.windows import START
from roots_compress.models import attention
from roots_compress.models.blocks.base import Context, Sees, make_norm
from roots_compress.models.caches import empty_cache
from roots_compress.models.config import RootsConfig
from roots_compress.models.device import as_multiplied
from roots_compress.models.layer import RootsLayer
from roots_compress.models.layer_inputs import LayerInputTables
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.quantized import make_embedding
from roots_compress.models.relative import Source, positions_of, valid_slots
from roots_compress.models.rotary import cos_sin, rotary_frequencies
from roots_compress.models.spec import EMBEDDING, Stack


class RootsPreTrainedModel(PreTrainedModel):
    """The settings with which transformers loads, saves and initialises a ROOTS model."""

    config: RootsConfig
    config_class = RootsConfig
    base_model_prefix = "model"
    _no_split_modules = ["RootsLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012


class StackParts(nn.Module):
    """A stack's own modules: a table of positions, norms and layers; the tokens' table is the model's."""

    config: RootsConfig

    def add_parts(self, spec: Stack) -> None:
        """Add the modules of a stack."""
        whole, embeddings = self.config.spec, self.config.spec.embeddings
        if embeddings.positions is not None:
            self.embed_positions = nn.Embedding(embeddings.positions, embeddings.table_width)
        if embeddings.token_types is not None:
            self.embed_token_types = nn.Embedding(embeddings.token_types, embeddings.table_width)
        if embeddings.norm is not None:
            self.embed_norm = make_norm(embeddings.norm, embeddings.table_width)
        if embeddings.tables is not None:
            self.embed_projection = nn.Linear(embeddings.tables, embeddings.width)
        first = 0 if spec is whole.source else whole.begins
        numbers = range(first, first + len(spec.layers))
        self.layers = nn.ModuleList(RootsLayer(self.config, index) for index in numbers)
        if spec.final_norm is not None:
            self.norm = make_norm(spec.final_norm, whole.width)

    def embedded(self, embeds_BTW: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Return the residual stream before the first layer."""
        embeddings = self.config.spec.embeddings
        hidden_BTW = embeds_BTW * embeddings.scale if embeddings.scale != 1 else embeds_BTW
        if embeddings.token_types is not None:
            types_BT = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
            hidden_BTW = hidden_BTW + self.embed_token_types(types_BT)
        if embeddings.positions is not None:
            hidden_BTW = hidden_BTW + self.embed_positions(position_ids)
        hidden_BTW = hidden_BTW if embeddings.norm is None else self.embed_norm(hidden_BTW)
        return hidden_BTW if embeddings.tables is None else self.embed_projection(hidden_BTW)

    def normed(self, hidden_BTW: Tensor) -> Tensor:
        """Return the stack's normed output, for the stream after the last layer."""
        norm = getattr(self, "norm", None)
        return hidden_BTW if norm is None else norm(hidden_BTW)


class RootsEncoder(StackParts):
    """The encoder before a decoder."""

    def __init__(self, config: RootsConfig) -> None:
        super().__init__()
        self.config = config
        assert config.spec.source is not None
        self.add_parts(config.spec.source)


class RootsModel(RootsPreTrainedModel, StackParts):
    """Embeddings, layers and final norm of the stack under the head, and the encoder before it, if any."""

    def __init__(self, config: RootsConfig) -> None:
        super().__init__(config)
        spec = config.spec
        tied = spec.tied and spec.head.predicts_tokens
        self.embed_tokens = make_embedding(config, EMBEDDING, width=config.table_width, tied=tied)
        self.embed_layers = None if spec.embeddings.layer_inputs is None else LayerInputTables(config)
        self.encoder = RootsEncoder(config) if spec.source is not None else None
        self.add_parts(spec.stack)
        # Not in the state dict, and always float32, whatever the weights' dtype.
        self._rotary = {
            (each.rope, each.head_dim): rotary_frequencies(each.rope, each.head_dim, spec.max_positions)
            for each in spec.attentions()
            if each.rope is not None
        }
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.embed_tokens

    def parts(self) -> tuple[StackParts, ...]:
        """Return the stacks in the order in which they run."""
        return (self,) if self.encoder is None else (self.encoder, self)

    def parts_and_layers(self) -> Iterator[tuple[StackParts, int, int]]:
        """Yield each stack with the number of its first layer, and the number after its last."""
        first = 0
        for part in self.parts():
            yield part, first, first + len(part.layers)
            first += len(part.layers)

    def all_layers(self) -> list[RootsLayer]:
        """Return the layers of all stacks, in the order in which they run."""
        return [layer for part in self.parts() for layer in part.layers if isinstance(layer, RootsLayer)]

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
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_segment_ids: Tensor | None = None,
        encoder_states: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Run the stack; if there is an encoder, run that first.

        Without an encoder the first arguments are the stack's. With one, `input_ids`, `attention_mask`,
        `segment_ids` and `inputs_embeds` are the encoder's, and those that begin with `decoder` are the
        decoder's, as the cache is.

        Args:
            attention_mask: `BS`, 0 at padding; None without padding.
            position_ids: `BT`; derived from the mask if absent.
            past_key_values: keys and values of earlier tokens; extended in place.
            inputs_embeds: `BTW`, in place of `input_ids`.
            use_cache: whether to return keys and values for decoding; by default outside of training.
            segment_ids: `BT` document numbers of packed windows; tokens attend within their document
                only, and positions restart at each. Not together with a cache.
            output_hidden_states: also return the residual stream after the embedding and after each layer of
                the stack that the head reads.
            token_type_ids: `BT`; all 0 if absent.
            decoder_input_ids: `BT` tokens; `START` stands for the token with which the decoder begins.
            decoder_attention_mask: as `attention_mask`.
            decoder_segment_ids: as `segment_ids`; tokens see the encoder's documents of the same number.
            encoder_states: the encoder's output `BSW`, which is then not run.
        """
        source, segments, mask = None, segment_ids, attention_mask
        if self.encoder is not None:
            if encoder_states is None:
                encoder_states = self.encode(
                    input_ids,
                    attention_mask=attention_mask,
                    segment_ids=segment_ids,
                    inputs_embeds=inputs_embeds,
                )
            segments, mask, inputs_embeds = decoder_segment_ids, decoder_attention_mask, None
            assert decoder_input_ids is not None
            input_ids = self.started(decoder_input_ids)
        embeds_BTW = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            caches = "decoder" in self.config.spec.stacks and self.config.use_cache
            use_cache = caches and not self.training and segments is None
        if use_cache and past_key_values is None:
            past_key_values = empty_cache(self.config.spec)
            if encoder_states is not None:
                past_key_values = EncoderDecoderCache(past_key_values, DynamicCache())
        if encoder_states is not None:
            valid_BS = None if attention_mask is None else attention_mask.bool()
            states_BSW = as_multiplied(encoder_states)
            source = Source.of(states_BSW, valid_BS, segment_ids, decoder_segment_ids, past_key_values)
        states: list[Tensor] = []
        kept = states if output_hidden_states else None
        rest = position_ids, past_key_values, source, token_type_ids, kept, input_ids
        last_BTW = self._run(self, embeds_BTW, mask, segments, *rest)
        return BaseModelOutputWithPast(
            last_hidden_state=last_BTW,
            past_key_values=past_key_values,
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def encode(
        self,
        input_ids: Tensor | None,
        *,
        attention_mask: Tensor | None = None,
        segment_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the output of the encoder before a decoder, `BSW`; see `forward`."""
        assert self.encoder is not None
        embeds_BSW = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return self._run(self.encoder, embeds_BSW, attention_mask, segment_ids, *[None] * 6)

    def started(self, decoder_input_ids: Tensor) -> Tensor:
        """Return a decoder's tokens with `START` replaced by the model's start token."""
        head = self.config.spec.head
        assert isinstance(head, Seq2SeqHead)
        return decoder_input_ids.masked_fill(decoder_input_ids == START, head.start)

    def _run(
        self,
        part: StackParts,
        embeds_BTW: Tensor,
        attention_mask: Tensor | None,
        segment_ids: Tensor | None,
        position_ids: Tensor | None,
        cache: Cache | None,
        source: Source | None,
        token_type_ids: Tensor | None,
        states: list[Tensor] | None,
        input_ids: Tensor | None,
    ) -> Tensor:
        """Return the normed output of a stack, `BTW`; its residual stream is appended to `states`."""
        batch, tokens, _width = embeds_BTW.shape
        past = cache.get_seq_length() if cache is not None else 0
        if segment_ids is not None and past:
            raise ValueError("segment_ids are for packed training windows and cannot go on from a cache")
        valid_BS = valid_slots(batch, past + tokens, attention_mask, embeds_BTW.device)
        positions_BS = positions_of(valid_BS, segment_ids)
        if position_ids is None:
            position_ids = positions_BS[:, past:]
        hidden_BTW = part.embedded(embeds_BTW, position_ids, token_type_ids)
        masked = attention_mask is not None or segment_ids is not None
        seen = self.config.spec.source if part is self.encoder else self.config.spec.stack
        assert seen is not None
        context = Context(
            self._views(seen, tokens, valid_BS, positions_BS, segment_ids, masked=masked),
            {key: cos_sin(frequencies, position_ids) for key, frequencies in self._rotary.items()},
            positions_BS[:, past:],
            None if attention_mask is None else valid_BS[:, past:],
            cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache,
            source,
            None if self.embed_layers is None else self.embed_layers(input_ids, hidden_BTW),
        )
        for layer in part.layers:
            if states is not None:  # Else each is freed early: at 32k tokens they are gigabytes.
                states.append(hidden_BTW)
            hidden_BTW = layer(hidden_BTW, context)
        if states is not None:
            states.append(hidden_BTW)
        return part.normed(hidden_BTW)

    def _views(
        self,
        stack: Stack,
        tokens: int,
        valid_BS: Tensor,
        positions_BS: Tensor,
        segment_ids: Tensor | None,
        *,
        masked: bool,
    ) -> dict[Sees, attention.View]:
        """Return which keys the queries of a stack see, for each of its windows."""
        ops = (sublayer.op for layer in stack.layers for sublayer in layer)
        own = [each for each in ops if isinstance(each, Attention) and each.source == "self"]
        return {
            (window, causal): attention.View(
                attention.Visibility(tokens, valid_BS, window, segment_ids, causal),
                positions_BS,
                masked=masked,
            )
            for window, causal in {(each.window, each.causal) for each in own}
        }


AutoConfig.register("roots", RootsConfig)
AutoModel.register(RootsConfig, RootsModel)
