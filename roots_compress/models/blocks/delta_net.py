"""Gated DeltaNet, whose cache holds the convolution's last inputs and a matrix for each head.

Shape legend: B batch, T tokens, W hidden size, H value heads, K channels of a key, V channels of a value, C
channels of queries, keys and values together, x heads * channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.blocks.conv import causal_conv
from roots_compress.models.delta_rule import Heads, gated_delta_rule
from roots_compress.models.ops.delta_net import CONVOLVED, GatedDeltaNet

EPS = 1e-6
"""Of the lengths of queries and keys."""


class GatedDeltaNetBlock(Block):
    """Linear attention by the gated delta rule; see `GatedDeltaNet`."""

    spec: GatedDeltaNet
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    z_proj: nn.Module
    b_proj: nn.Module
    a_proj: nn.Module
    out_proj: nn.Module

    def add_holders(self, config: Any) -> None:
        """Add the convolution in three parts, the decays and the norm."""
        spec = self.spec
        for name, size in zip(CONVOLVED, spec.convolved, strict=True):
            self.add_module(f"{name}_conv", nn.Conv1d(size, size, spec.kernel, groups=size, bias=False))
        self.A_log = nn.Parameter(torch.empty(spec.value_heads).uniform_(1, 16).log())
        self.dt_bias = nn.Parameter(torch.ones(spec.value_heads))
        self.norm = nn.RMSNorm(spec.value_dim, eps=spec.eps)

    def contribution(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the block's contribution to the residual stream, `BTW`."""
        out_BTW: Tensor = self.out_proj(self.inner(x_BTW, context))
        return out_BTW

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return what the output projection reads, `BTx`."""
        spec, cache = self.spec, context.cache
        # Asked for before the convolution's inputs are kept, with which a cache's layer begins.
        state_BHKV = None if cache is None else cache.get_recurrent_state(self.layer_idx)
        read_BTC = torch.cat((self.q_proj(x_BTW), self.k_proj(x_BTW), self.v_proj(x_BTW)), dim=-1)
        weights: list[Tensor] = [
            self.get_submodule(f"{name}_conv").get_parameter("weight") for name in CONVOLVED
        ]
        mixed_BTC = F.silu(causal_conv(read_BTC, torch.cat(weights), context, self.layer_idx))
        parts = zip(
            mixed_BTC.float().split(spec.convolved, dim=-1),
            (*[spec.key_dim] * 2, spec.value_dim),
            strict=True,
        )
        query, key, value = (part.unflatten(-1, (-1, size)).transpose(1, 2) for part, size in parts)
        query, key = (each * (each.square().sum(-1, keepdim=True) + EPS).rsqrt() for each in (query, key))
        rate_BTH, step_BTH = self.b_proj(x_BTW).float().sigmoid(), self.a_proj(x_BTW).float() + self.dt_bias
        heads = Heads(
            query.repeat_interleave(spec.shared, dim=1) * spec.key_dim**-0.5,
            key.repeat_interleave(spec.shared, dim=1),
            value,
            (-self.A_log.float().exp() * F.softplus(step_BTH)).transpose(1, 2),
            rate_BTH.transpose(1, 2),
        )
        starts_BT = None if context.positions_BT is None else context.positions_BT == 0
        given_BHTV, state_BHKV = gated_delta_rule(heads, starts_BT, state_BHKV)
        if cache is not None:
            cache.update_recurrent_state(state_BHKV, self.layer_idx)
        normed_BTHV = self.norm(given_BHTV.transpose(1, 2).to(x_BTW.dtype))
        inner_BTx: Tensor = normed_BTHV.flatten(2) * F.silu(self.z_proj(x_BTW))
        return inner_BTx

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Join values, gate and output channel by channel: what heads share has other sizes."""
        out_BTW: Tensor = self.out_proj(self.v_proj(x_BTW) * self.z_proj(x_BTW))
        return out_BTW
