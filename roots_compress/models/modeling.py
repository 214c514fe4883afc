"""The ROOTS model: a decoder whose layers may differ in width, as transformers loads, runs and saves it.

Its layers are in `layer.py`, and their blocks in `blocks/`.

Shape legend: B batch, T new tokens, S all tokens (cached and new), W hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from roots_compress.models import attention
from roots_compress.models.blocks.base import Context, Sees, make_norm
from roots_compress.models.config import RootsConfig
from roots_compress.models.layer import RootsLayer
from roots_compress.models.limits import longrope_length
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.quantized import QuantizedEmbedding, make_embedding, make_linear
from roots_compress.models.rotary import cos_sin, rotary_frequencies
from roots_compress.models.spec import EMBEDDING, HEAD


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


class RootsWithHead(RootsPreTrainedModel):
    """A ROOTS model with what it ends with.

    Raises:
        ValueError: the configuration's head is of another kind.
    """

    head_kind: ClassVar[str]
    """Of the heads (`models/ops/heads.py`) that the class is for."""

    def __init__(self, config: RootsConfig) -> None:
        kind = config.spec.head.kind
        if kind != self.head_kind:
            # Its own weights would be left out, and random ones take their place.
            raise ValueError(
                f"{type(self).__name__} is for heads of the kind '{self.head_kind}', and the model's is of "
                f"the kind '{kind}': load it by the class for that kind (docs/model.md lists them)"
            )
        super().__init__(config)
        self.model = RootsModel(config)
        self.add_head(config)
        self.post_init()

    def add_head(self, config: RootsConfig) -> None:
        """Add the head's modules."""

    # The head is a function of states at positions, `bounded(head_input(states) @ weight.T)`.

    @property
    def head_norm(self) -> str | None:
        """The norm whose output the head's matrix reads, by name; None where there is none."""
        return None

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None] | None:
        """The head's matrix `VW` in float weights, and the bias `V` of `bounded` where it has one.

        None of a head that gives vectors: they are what `head_input` returns.
        """
        return None

    @property
    def outcomes(self) -> int:
        """V: logits that the head gives at a position, or channels of a vector."""
        raise NotImplementedError

    def states_at(self, hidden_BTW: Tensor, places_BT: Tensor, segment_ids_BT: Tensor) -> Tensor:
        """Return what the head works on at some positions, `NW`: their own final hidden states.

        Args:
            hidden_BTW: of packed windows.
            places_BT: True at the positions.
            segment_ids_BT: number of each position's text in its window.
        """
        return hidden_BTW[places_BT]

    def reads(self, input_ids_BT: Tensor, segment_ids_BT: Tensor | None = None) -> Tensor:
        """Return at which positions of packed windows the head predicts, `BT`: at all of them.

        A head that answers once a text does so where the text begins.
        """
        return torch.ones_like(input_ids_BT, dtype=torch.bool)

    def head_input(self, states_NW: Tensor) -> Tensor:
        """Return what the head's matrix reads, for final hidden states at any positions."""
        return states_NW

    def bounded(self, logits_NV: Tensor) -> Tensor:
        """Return the logits for what the head's matrix gives."""
        raise NotImplementedError

    def project(self, states_NW: Tensor) -> Tensor:
        """Return what the head makes of final hidden states at any positions."""
        raise NotImplementedError


class RootsWithVocabulary(RootsWithHead):
    """A ROOTS model whose head has a matrix as large as the embedding."""

    _tied_weights_keys: dict[str, str] = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def add_head(self, config: RootsConfig) -> None:
        """Add the vocabulary's matrix, or share the embedding's quantized table with the head."""
        self.lm_head: nn.Module | None = None
        if config.tie_word_embeddings and isinstance(self.model.embed_tokens, QuantizedEmbedding):
            # A quantized table is shared with the head by use: it has no parameter that could be tied.
            self._tied_weights_keys = {}
        else:
            self.lm_head = make_linear(config, HEAD, config.hidden_size, config.vocab_size, False)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the vocabulary's matrix; None where the quantized embedding serves as one."""
        return self.lm_head

    @property
    def head_matrix(self) -> tuple[Tensor, Tensor | None]:
        """The vocabulary's matrix, without a bias."""
        assert self.lm_head is not None, "a quantized head has no gradient"
        return self.lm_head.get_parameter("weight"), None

    @property
    def outcomes(self) -> int:
        """The tokens of the vocabulary."""
        return int(self.config.vocab_size)

    def project(self, states_NW: Tensor) -> Tensor:
        """Return the logits `NV` of final hidden states."""
        head = self.lm_head if self.lm_head is not None else self.model.embed_tokens.multiply
        return self.bounded(head(self.head_input(states_NW)))


class RootsForCausalLM(RootsWithVocabulary, GenerationMixin):
    """A ROOTS model that predicts the next token."""

    head_kind = "lm"

    @property
    def head_norm(self) -> str | None:
        """The norm after the last layer."""
        return None if self.config.spec.stack.final_norm is None else "model.norm"

    def bounded(self, logits_NV: Tensor) -> Tensor:
        """Return the logits for what the head's matrix gives: scaled, and capped."""
        spec = self.config.spec.head
        assert isinstance(spec, LmHead)
        logits_NV = logits_NV * spec.scale if spec.scale != 1 else logits_NV
        return logits_NV if spec.softcap is None else spec.softcap * torch.tanh(logits_NV / spec.softcap)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what `forward` reads next: the whole text anew where LongRoPE's factors change."""
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
        """Return logits `BTV`, of the last `logits_to_keep` tokens only where that is above 0.

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


AutoConfig.register("roots", RootsConfig)
AutoModel.register(RootsConfig, RootsModel)
AutoModelForCausalLM.register(RootsConfig, RootsForCausalLM)
