"""Attention over the cache: positions, norms of queries and keys, dense or sparse.

Shape legend: B batch, T new tokens, S all tokens (cached and new), W hidden size, H query heads, G key/value
heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models import attention
from roots_compress.models.block_attention import block_attention
from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.norm import RMSNorm
from roots_compress.models.ops.attention import Attention, BlockSparse
from roots_compress.models.ops.positions import Disentangled
from roots_compress.models.quantized import CacheRounding, has_int8_cache
from roots_compress.models.rotary import rotate


class AttentionBlock(Block):
    """Attention with grouped key/value heads, to its own stack or to an encoder's output."""

    spec: Attention
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    gate_proj: nn.Module
    q_a_proj: nn.Module
    q_a_norm: nn.Module
    kv_a_proj: nn.Module
    kv_a_norm: nn.Module
    k_rope_proj: nn.Module
    o_proj: nn.Module
    last = "o_proj"

    def __init__(self, spec: Attention, config: Any, name: str, layer: int) -> None:
        super().__init__(spec, config, name, layer)
        if spec.qk_norm is not None:
            whole = spec.qk_norm.over == "projection"
            queries, keys = (spec.heads, spec.kv_heads) if whole else (1, 1)
            self.q_norm = RMSNorm(spec.head_dim * queries, eps=spec.qk_norm.eps)
            if spec.made:
                self.k_norm = RMSNorm(spec.head_dim * keys, eps=spec.qk_norm.eps)
        if spec.latent is not None:
            for norm, width in spec.latent.norms.items():
                self.add_module(norm, RMSNorm(width, eps=spec.latent.eps))
        if spec.relative is not None:
            self.relative = nn.Embedding(spec.relative.buckets, spec.heads)
        if spec.disentangled is not None:
            for table in spec.disentangled.tables:
                self.add_module(table, nn.Embedding(spec.disentangled.rows, spec.heads * spec.head_dim))
        if spec.sinks:
            self.sinks = nn.Parameter(torch.zeros(spec.heads))
        self.cache_observer: Callable[[Tensor, Tensor], None] | None = None
        """Called with keys and values, `BTGD` each, as the cache keeps them but before rotary positions."""
        self.cache_rounding = CacheRounding(spec.kv_heads, spec.head_dim) if has_int8_cache(config) else None

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the output projection's input, `(B, T, H * D)`: the heads' contexts side by side."""
        spec = self.spec
        if spec.source == "cross":
            return self._crossed(x_BTW, context)
        query_BTHD = self._heads(self._queries(x_BTW), "q_norm")
        query_BHTD = self._turned(query_BTHD, "q_norm", context)
        if spec.sharing == "takes":
            key_BGSD, value_BGSD = (each.to(x_BTW.device) for each in context.given[spec.keys])
        else:
            key_BGSD, value_BGSD = self._keys_and_values(x_BTW, context)
        if spec.sharing == "gives":
            context.given[spec.keys] = key_BGSD, value_BGSD
        context_BHTD = self._attend(query_BHTD, key_BGSD, value_BGSD, context.views[spec.window, spec.causal])
        context_BTx = context_BHTD[..., : spec.value_dim].transpose(1, 2).flatten(2)
        return context_BTx * torch.sigmoid(self.gate_proj(x_BTW)) if spec.gated else context_BTx

    def _keys_and_values(self, x_BTW: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the keys and values of all tokens, `BGSD`, after adding the new ones to the cache."""
        norm = self.spec.qk_norm
        if self.spec.latent is None:
            key_BTx = self.k_proj(x_BTW)
            value_BTx = key_BTx if self.spec.keys_as_values else self.v_proj(x_BTW)
        else:
            key_BTx, value_BTx = self._of_latent(x_BTW)
        value_BTGD = value_BTx.unflatten(-1, (-1, self.spec.head_dim))
        if norm is not None and norm.values:
            value_BTGD = F.rms_norm(value_BTGD, (self.spec.head_dim,), eps=norm.eps)
        key_BTGD = self._heads(key_BTx, "k_norm")
        key_BGSD, value_BGSD = self._turned(key_BTGD, "k_norm", context), value_BTGD.transpose(1, 2)
        if self.cache_observer is not None:
            normed_last = norm is not None and norm.after_rope
            self.cache_observer(key_BGSD.transpose(1, 2) if normed_last else key_BTGD, value_BTGD)
        if self.cache_rounding is not None:
            key_BGSD, value_BGSD = self.cache_rounding(key_BGSD, value_BGSD)
        if context.cache is not None:
            key_BGSD, value_BGSD = context.cache.update(key_BGSD, value_BGSD, self.layer_idx)
        return key_BGSD, value_BGSD

    def _queries(self, x_BTW: Tensor) -> Tensor:
        """Return the queries of all heads side by side, `BTx`."""
        latent = self.spec.latent
        if latent is not None and latent.query_rank is not None:
            x_BTW = self.q_a_norm(self.q_a_proj(x_BTW))
        query_BTx: Tensor = self.q_proj(x_BTW)
        return query_BTx

    def _of_latent(self, x_BTW: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of all heads side by side, `BTx`, with zeros after each head's values."""
        spec = self.spec
        latent_BTR = self.kv_a_norm(self.kv_a_proj(x_BTW))
        own_BTHd, value_BTHd = (
            linear(latent_BTR).unflatten(-1, (spec.heads, -1)) for linear in (self.k_proj, self.v_proj)
        )
        turned_BTHd = self.k_rope_proj(x_BTW)[:, :, None].expand(-1, -1, spec.heads, -1)
        key_BTHD = torch.cat((turned_BTHd, own_BTHd), dim=-1)
        value_BTHD = F.pad(value_BTHd, (0, spec.head_dim - spec.value_dim))
        return key_BTHD.flatten(2), value_BTHD.flatten(2)

    def _heads(self, x_BTx: Tensor, norm: str) -> Tensor:
        """Return queries or keys by head, `BTHD`, after their norm if it precedes the positions."""
        spec = self.spec.qk_norm
        over = None if spec is None or spec.after_rope else spec.over
        if over == "projection":
            x_BTx = self.get_submodule(norm)(x_BTx)
        x_BTHD: Tensor = x_BTx.unflatten(-1, (-1, self.spec.head_dim))
        if over == "head":
            x_BTHD = self.get_submodule(norm)(x_BTHD)
        return x_BTHD

    def _turned(self, x_BTHD: Tensor, norm: str, context: Context) -> Tensor:
        """Return queries or keys with rotary positions, `BHTD`, and after a norm that follows them."""
        spec, x_BHTD = self.spec, x_BTHD.transpose(1, 2)
        if spec.rope is not None:
            x_BHTD = rotate(x_BHTD, context.angles[spec.rope, spec.head_dim])
        if spec.qk_norm is not None and spec.qk_norm.after_rope:
            x_BHTD = self.get_submodule(norm)(x_BHTD)
        return x_BHTD

    def _crossed(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the output projection's input in cross-attention."""
        spec, source = self.spec, context.source
        assert source is not None
        kept = source.cache
        query_BHTD = self.q_proj(x_BTW).unflatten(-1, (spec.heads, spec.head_dim)).transpose(1, 2)
        if kept is not None and kept.is_updated.get(self.layer_idx):
            layer: Any = kept.cross_attention_cache.layers[self.layer_idx]
            key_BGSD, value_BGSD = layer.keys, layer.values
        else:
            key_BGSD, value_BGSD = (
                linear(source.states_BSW).unflatten(-1, (spec.kv_heads, spec.head_dim)).transpose(1, 2)
                for linear in (self.k_proj, self.v_proj)
            )
            if kept is not None:
                kept.cross_attention_cache.update(key_BGSD, value_BGSD, self.layer_idx)
                kept.is_updated[self.layer_idx] = True
        context_BHTD = attention.dense_attention(
            query_BHTD, key_BGSD, value_BGSD, source.visible_B1TS, spec.factor, causal=False
        )
        return context_BHTD.transpose(1, 2).flatten(2)

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Join channels head by head, without operations that mix channels only inside a head.

        Along `queries` each query channel is joined to the output projection's column of its head's context;
        along other axes keys and values are joined too.
        """
        out_BTW: Tensor
        if self.spec.latent is not None:
            out_BTW = self.o_proj(self.v_proj(self.kv_a_proj(x_BTW)))
            return out_BTW
        query = self.q_proj(x_BTW) * self.gate_proj(x_BTW) if self.spec.gated else self.q_proj(x_BTW)
        if axis == "queries":
            out_BTW = self.o_proj(query)
            return out_BTW
        if source_BTW is None or self.spec.source == "self":
            source_BTW = x_BTW
        for name in self.spec.made:
            query = query * self._repeated(self.get_submodule(name)(source_BTW))
        out_BTW = self.o_proj(query)
        return out_BTW

    def _repeated(self, key_BTC: Tensor) -> Tensor:
        """Return each key/value channel once for every query head of its group."""
        spec = self.spec
        if spec.queries == 1:
            return key_BTC
        batch, tokens, _ = key_BTC.shape
        heads = key_BTC.view(batch, tokens, spec.kv_heads, spec.head_dim).transpose(1, 2)
        # torch-pruning recognises grouped heads by this expansion to five dimensions.
        repeated = heads[:, :, None].expand(-1, -1, spec.queries, -1, -1)
        return repeated.reshape(batch, spec.heads, tokens, -1).transpose(1, 2).reshape(batch, tokens, -1)

    def _attend(
        self, query_BHTD: Tensor, key_BGSD: Tensor, value_BGSD: Tensor, view: attention.View
    ) -> Tensor:
        spec, scale = self.spec, self.spec.factor
        if isinstance(spec.sparse, BlockSparse):
            blocks = view.blocks(spec.sparse.size)
            if blocks.count > spec.sparse.blocks:
                return block_attention(
                    query_BHTD, key_BGSD, value_BGSD, view.visibility, blocks, scale, spec.sparse.blocks
                )
        elif spec.sparse is not None:
            return attention.top_m_attention(
                query_BHTD, key_BGSD, value_BGSD, view.mask(), scale, spec.sparse.keys
            )
        if spec.softcap is not None or spec.sinks:
            sinks_H = self.sinks if spec.sinks else None
            return attention.explicit_attention(
                query_BHTD, key_BGSD, value_BGSD, view.mask(), scale, softcap=spec.softcap, sinks_H=sinks_H
            )
        seen = view.needed_mask()
        if spec.relative is not None:
            seen = self._by_distance(query_BHTD, view)
        elif spec.disentangled is not None:
            seen = self._by_content(query_BHTD, key_BGSD, view, spec.disentangled)
        return attention.dense_attention(query_BHTD, key_BGSD, value_BGSD, seen, scale, causal=spec.causal)

    def _by_distance(self, query_BHTD: Tensor, view: attention.View) -> Tensor:
        """Return the scores' bias by distance, `BHTS`: minus infinity at invisible keys."""
        assert self.spec.relative is not None
        added_HTS = self.relative(view.distances.buckets(self.spec.relative)).permute(2, 0, 1)
        added_BHTS: Tensor = added_HTS.to(query_BHTD.dtype).masked_fill(~view.mask(), -torch.inf)
        return added_BHTS

    def _by_content(
        self, query_BHTD: Tensor, key_BHSD: Tensor, view: attention.View, spec: Disentangled
    ) -> Tensor:
        """Return the scores' bias from products with distances, `BHTS`; as `_by_distance`."""
        row_TS, added_BHTS = view.distances.buckets(spec), torch.zeros((), dtype=query_BHTD.dtype)
        for name in spec.tables:
            of_queries = name == "query_distances"
            content_BHxD, row_xx = (query_BHTD, row_TS) if of_queries else (key_BHSD, row_TS.T)
            table_RX = self.get_submodule(name).get_parameter("weight")
            table_HDR = table_RX.unflatten(1, (self.spec.heads, -1)).permute(1, 2, 0)
            products_BHxR = content_BHxD @ table_HDR.to(content_BHxD.dtype)
            met_BHxx = products_BHxR.gather(-1, row_xx.expand(*products_BHxR.shape[:2], -1, -1))
            added_BHTS = added_BHTS + (met_BHxx if of_queries else met_BHxx.mT)
        return (added_BHTS * self.spec.factor).masked_fill(~view.mask(), -torch.inf)
