"""What a ROOTS layer is made of: norms, attention over the cache, the feed-forward block, and their order.

Shape legend: B batch, T new tokens, S all tokens (cached and new), W hidden size, H query heads, G key/value
heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from roots_compress.models import attention
from roots_compress.models.config import RootsConfig
from roots_compress.models.device import as_multiplied
from roots_compress.models.quantized import CacheRounding, has_int8_cache, make_linear
from roots_compress.models.rotary import CosSin, rotate

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def make_norm(config: RootsConfig, width: int) -> nn.Module:
    """Return the normalisation that `config.norm` names, over the last `width` elements."""
    if config.norm == "layer_norm":
        return nn.LayerNorm(width, eps=config.norm_eps)
    return nn.RMSNorm(width, eps=config.norm_eps)


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
        context_BTW: Tensor = self.o_proj(self.context(hidden_BTW, view, cos_sin, cache))
        return context_BTW

    def context(
        self, hidden_BTW: Tensor, view: attention.View, cos_sin: CosSin | None, cache: Cache | None
    ) -> Tensor:
        """Return what the output projection reads, `(B, T, H * D)`: the heads' contexts side by side."""
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
        return context_BHTD.transpose(1, 2).reshape(batch, tokens, -1)

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
        out_BTW: Tensor = self.down_proj(self.inner(hidden_BTW))
        return out_BTW

    def inner(self, hidden_BTW: Tensor) -> Tensor:
        """Return what the down projection reads, `BTC` for C channels."""
        up_BTC: Tensor = self.up_proj(hidden_BTW)
        return self.activation(self.gate_proj(hidden_BTW)) * up_BTC if self.gated else self.activation(up_BTC)


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
        normed_BTW = as_multiplied(self.input_layernorm(hidden_BTW))
        hidden_BTW = hidden_BTW + self.self_attn(normed_BTW, view, cos_sin, cache)
        normed_BTW = as_multiplied(self.post_attention_layernorm(hidden_BTW))
        out_BTW: Tensor = hidden_BTW + self.mlp(normed_BTW)
        return out_BTW
