"""The ROOTS model: a decoder whose layers may differ in width, read top to bottom.

Shape legend: B batch, T new tokens, S all tokens (cached and new), W hidden size, H query heads, G key/value
heads, D head dimension, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, LlamaConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from roots_compress.model import attention
from roots_compress.model.config import RootsConfig
from roots_compress.model.quantized import (
    CacheRounding,
    QuantizedEmbedding,
    has_int8_cache,
    make_embedding,
    make_linear,
)

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}

CosSin = tuple[Tensor, Tensor]


def make_norm(config: RootsConfig, width: int) -> nn.Module:
    """Return the normalisation that `config.norm` names, over the last `width` elements."""
    if config.norm == "layer_norm":
        return nn.LayerNorm(width, eps=config.norm_eps)
    return nn.RMSNorm(width, eps=config.norm_eps)


def rotary_frequencies(config: RootsConfig, head_dim: int) -> tuple[Tensor, float]:
    """Return the inverse frequencies (`head_dim / 2`, float32) and the factor on cosines and sines.

    Scaled variants (`linear`, `llama3`, `yarn`) are computed by transformers.
    """
    parameters = dict(config.rope_parameters or {})
    if parameters["rope_type"] == "default":
        exponent = torch.arange(0, head_dim, 2, device="cpu").float() / head_dim
        return 1.0 / parameters["rope_theta"] ** exponent, 1.0
    llama = LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        head_dim=head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters=parameters,
    )
    # Inside `from_pretrained` tensors are made without storage unless a device is named.
    with torch.device("cpu"):
        frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](llama, device=torch.device("cpu"))
    return frequencies.float(), float(factor)


def rotate(x_BHTD: Tensor, cos_sin: CosSin) -> Tensor:
    """Apply rotary positions, the two halves of the head dimension forming the rotated pairs."""
    cos_BTd, sin_BTd = cos_sin
    cos, sin = cos_BTd[:, None].to(x_BHTD.dtype), sin_BTd[:, None].to(x_BHTD.dtype)
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class RootsAttention(nn.Module):
    """Self-attention with grouped key/value heads; dense or sparse as the config says."""

    def __init__(self, config: RootsConfig, index: int) -> None:
        super().__init__()
        layer = config.layers[index]
        self.config = config
        self.layer_idx = index
        self.num_heads: int = layer["num_attention_heads"]
        self.num_kv_heads: int = layer["num_key_value_heads"]
        self.head_dim: int = layer["head_dim"]
        self.scale = config.attention_scale or self.head_dim**-0.5
        query_width, kv_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        name = f"model.layers.{index}.self_attn."
        self.q_proj = make_linear(
            config, name + "q_proj", config.hidden_size, query_width, config.attention_bias
        )
        self.k_proj = make_linear(
            config, name + "k_proj", config.hidden_size, kv_width, config.attention_bias
        )
        self.v_proj = make_linear(
            config, name + "v_proj", config.hidden_size, kv_width, config.attention_bias
        )
        self.o_proj = make_linear(
            config, name + "o_proj", query_width, config.hidden_size, config.attention_output_bias
        )
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps)
        self.cache_rounding = (
            CacheRounding(self.num_kv_heads, self.head_dim) if has_int8_cache(config) else None
        )

    def forward(
        self,
        hidden_BTW: Tensor,
        view: attention.View,
        cos_sin: CosSin | None,
        cache: Cache | None,
    ) -> Tensor:
        """Return the attention's contribution to the residual stream, `BTW`."""
        batch, tokens, _ = hidden_BTW.shape
        query = self.q_proj(hidden_BTW).view(batch, tokens, self.num_heads, self.head_dim)
        key = self.k_proj(hidden_BTW).view(batch, tokens, self.num_kv_heads, self.head_dim)
        value = self.v_proj(hidden_BTW).view(batch, tokens, self.num_kv_heads, self.head_dim)
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query_BHTD, key_BGSD, value_BGSD = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if cos_sin is not None:
            query_BHTD, key_BGSD = rotate(query_BHTD, cos_sin), rotate(key_BGSD, cos_sin)
        if self.cache_rounding is not None:
            key_BGSD, value_BGSD = self.cache_rounding(key_BGSD, value_BGSD)
        if cache is not None:
            key_BGSD, value_BGSD = cache.update(key_BGSD, value_BGSD, self.layer_idx)
        context_BHTD = self._attend(query_BHTD, key_BGSD, value_BGSD, view)
        context_BTW: Tensor = self.o_proj(context_BHTD.transpose(1, 2).reshape(batch, tokens, -1))
        return context_BTW

    def _attend(
        self, query_BHTD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, view: attention.View
    ) -> Tensor:
        sparse = self.config.attention
        if sparse["kind"] == "block":
            assert view.blocks is not None
            return attention.block_attention(
                query_BHTD, key_BGSD, value_BGSD, view.sight, view.blocks, self.scale, sparse["num_blocks"]
            )
        visible_B1TS = view.visible_B1TS
        if sparse["kind"] == "dense":
            return attention.dense_attention(query_BHTD, key_BGSD, value_BGSD, visible_B1TS, self.scale)
        assert visible_B1TS is not None
        return attention.top_m_attention(
            query_BHTD, key_BGSD, value_BGSD, visible_B1TS, self.scale, sparse["top_m"]
        )


class RootsMLP(nn.Module):
    """The feed-forward block: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate."""

    def __init__(self, config: RootsConfig, index: int) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.layers[index]["intermediate_size"]
        name = f"model.layers.{index}.mlp."
        self.gated = config.gated_mlp
        self.activation = ACTIVATION_FUNCTIONS[config.activation]
        if self.gated:
            self.gate_proj = make_linear(config, name + "gate_proj", width, inner, config.mlp_bias)
        self.up_proj = make_linear(config, name + "up_proj", width, inner, config.mlp_bias)
        self.down_proj = make_linear(config, name + "down_proj", inner, width, config.mlp_bias)

    def forward(self, hidden_BTW: Tensor) -> Tensor:
        """Return the MLP's contribution to the residual stream, `BTW`."""
        up = self.up_proj(hidden_BTW)
        inner = self.activation(self.gate_proj(hidden_BTW)) * up if self.gated else self.activation(up)
        out_BTW: Tensor = self.down_proj(inner)
        return out_BTW


class RootsLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: RootsConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config, config.hidden_size)
        self.self_attn = RootsAttention(config, index)
        self.post_attention_layernorm = make_norm(config, config.hidden_size)
        self.mlp = RootsMLP(config, index)

    def forward(
        self,
        hidden_BTW: Tensor,
        view: attention.View,
        cos_sin: CosSin | None,
        cache: Cache | None,
    ) -> Tensor:
        """Return the residual stream after this layer, `BTW`."""
        normed_BTW = self.input_layernorm(hidden_BTW)
        hidden_BTW = hidden_BTW + self.self_attn(normed_BTW, view, cos_sin, cache)
        out_BTW: Tensor = hidden_BTW + self.mlp(self.post_attention_layernorm(hidden_BTW))
        return out_BTW


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
        self.embed_tokens = make_embedding(config, "model.embed_tokens")
        if config.position == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(RootsLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = make_norm(config, config.hidden_size)
        # Kept outside the state dict, and in float32 whatever the weights' dtype.
        self._rotary = (
            {layer["head_dim"]: rotary_frequencies(config, layer["head_dim"]) for layer in config.layers}
            if config.position == "rotary"
            else {}
        )
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
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder.

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
        """
        embeds_BTW = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        batch, tokens, _width = embeds_BTW.shape
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and segment_ids is None
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if segment_ids is not None and past:
            raise ValueError("segment_ids are for packed training windows and cannot go on from a cache")

        valid_BS = self._valid(batch, past + tokens, attention_mask, embeds_BTW.device)
        positions_BS = self._positions(valid_BS, segment_ids)
        if position_ids is None:
            position_ids = positions_BS[:, past:]
        hidden_BTW = (
            embeds_BTW * self.config.embedding_scale if self.config.embedding_scale != 1 else embeds_BTW
        )
        if self.config.position == "learned":
            hidden_BTW = hidden_BTW + self.embed_positions(position_ids)

        masked = attention_mask is not None or segment_ids is not None
        views: dict[int | None, attention.View] = {}
        rotary = {width: self._cos_sin(width, position_ids) for width in self._rotary}
        states = [hidden_BTW]
        for layer, widths in zip(self.layers, self.config.layers, strict=True):
            window = widths["sliding_window"]
            if window not in views:
                sight = attention.Sight(tokens, valid_BS, window, segment_ids)
                views[window] = self._view(sight, positions_BS, masked)
            cos_sin = rotary.get(widths["head_dim"])
            hidden_BTW = layer(hidden_BTW, views[window], cos_sin, past_key_values)
            if output_hidden_states:
                states.append(hidden_BTW)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_BTW),
            past_key_values=past_key_values,
            hidden_states=tuple(states) if output_hidden_states else None,
        )

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

    def _view(self, sight: attention.Sight, positions_BS: Tensor, masked: bool) -> attention.View:
        sparse, slots = self.config.attention, sight.key_valid_BS.shape[1]
        if sparse["kind"] == "block":
            block_size = sparse.get("block_size") or math.isqrt(self.config.max_position_embeddings - 1) + 1
            return attention.View(sight, None, attention.Blocks.of(sight, positions_BS, block_size))
        plain = not masked and (sight.window is None or sight.window >= slots) and sight.queries in (1, slots)
        mask = None if plain and sparse["kind"] == "dense" else sight.mask()
        return attention.View(sight, mask, None)

    def _cos_sin(self, head_dim: int, position_ids: Tensor) -> CosSin:
        frequencies, factor = self._rotary[head_dim]
        angles = position_ids[..., None].float() * frequencies.to(position_ids.device)
        return angles.cos() * factor, angles.sin() * factor


class RootsForCausalLM(RootsPreTrainedModel, GenerationMixin):
    """A ROOTS model with its output head."""

    _tied_weights_keys: dict[str, str] = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: RootsConfig) -> None:
        super().__init__(config)
        self.model = RootsModel(config)
        self.lm_head: nn.Module | None = None
        if config.tie_word_embeddings and isinstance(self.model.embed_tokens, QuantizedEmbedding):
            # A quantized table is shared with the head by use: it has no parameter that could be tied.
            self._tied_weights_keys = {}
        else:
            self.lm_head = make_linear(config, "lm_head", config.hidden_size, config.vocab_size, False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the output head; None where the quantized embedding serves as one."""
        return self.lm_head

    def project(self, hidden_BTW: Tensor) -> Tensor:
        """Return the logits `BTV` of final hidden states."""
        head = self.lm_head if self.lm_head is not None else self.model.embed_tokens.multiply
        logits_BTV: Tensor = head(hidden_BTW)
        return logits_BTV * self.config.logit_scale if self.config.logit_scale != 1 else logits_BTV

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
AutoModelForCausalLM.register(RootsConfig, RootsForCausalLM)
