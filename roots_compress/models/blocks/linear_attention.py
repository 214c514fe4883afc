"""Linear attention; its cache holds the convolution's last inputs and a matrix for each head.

Shape legend: B batch, T tokens, W hidden size, G key heads, H value heads, K channels of a key, V channels of
a value, C channels of queries, keys and values together, x heads * channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.blocks.conv import causal_conv
from roots_compress.models.linear_attention import Heads, linear_attention
from roots_compress.models.norm import RMSNorm
from roots_compress.models.ops.linear_attention import GatedDeltaNet, LinearAttention, Mamba2

EPS = 1e-6
"""Of the lengths of queries and keys."""


class LinearAttentionBlock(Block):
    """The part that all linear attention shares."""

    spec: LinearAttention
    z_proj: nn.Module
    a_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module
    A_log: nn.Parameter
    dt_bias: nn.Parameter

    def add_holders(self, config: Any) -> None:
        """Add the convolution in three parts, the heads' parameters and the norm."""
        spec = self.spec
        for letter, size in zip(spec.streams, spec.convolved, strict=True):
            conv = nn.Conv1d(size, size, spec.kernel, groups=size, bias=spec.bias)
            self.add_module(f"{letter}_conv", conv)
        for name in spec.vectors:
            self.register_parameter(name, nn.Parameter(torch.ones(spec.value_heads)))
        self.A_log = nn.Parameter(torch.empty(spec.value_heads).uniform_(1, 16).log())
        if spec.normed:
            self.norm = RMSNorm(spec.normed, eps=spec.eps)

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the output projection's input, `BTx`."""
        spec, cache = self.spec, context.cache
        # Read before the convolution's inputs are cached, because that begins the cache's layer.
        state_BHKV = None if cache is None else cache.get_recurrent_state(self.layer_idx)
        read_BTC = torch.cat([self.get_submodule(f"{each}_proj")(x_BTW) for each in spec.streams], dim=-1)
        mixed_BTC = causal_conv(read_BTC, self._convolution("weight"), context, self.layer_idx)
        mixed_BTC = F.silu(mixed_BTC + self._convolution("bias") if spec.bias else mixed_BTC)
        parts = dict(zip(spec.streams, mixed_BTC.float().split(spec.convolved, dim=-1), strict=True))
        query_BHTK, key_BHTK = (
            self.directed(parts[letter].unflatten(-1, (-1, spec.key_dim)).transpose(1, 2)).repeat_interleave(
                spec.shared, dim=1
            )
            for letter in "qk"
        )
        value_BHTV = parts["v"].unflatten(-1, (-1, spec.value_dim)).transpose(1, 2)
        step_BHT = F.softplus(self.a_proj(x_BTW).float() + self.dt_bias).transpose(1, 2)
        valid_BT = context.valid_BT
        if valid_BT is not None:  # Padding does not change a matrix.
            step_BHT = step_BHT * valid_BT[:, None]
        decay_BHT = -self.A_log.float().exp()[:, None] * step_BHT
        heads = self.heads(query_BHTK, key_BHTK, value_BHTV, decay_BHT, step_BHT, x_BTW)
        starts_BT = None if context.positions_BT is None else context.positions_BT == 0
        if valid_BT is not None:
            starts_BT = None if starts_BT is None else starts_BT & valid_BT
            if heads.rate_BHT is not None:
                heads = heads._replace(rate_BHT=heads.rate_BHT * valid_BT[:, None])
        given_BHTV, state_BHKV = linear_attention(heads, starts_BT, state_BHKV)
        if cache is not None:
            cache.update_recurrent_state(state_BHKV, self.layer_idx)
        return self.gated(given_BHTV, value_BHTV, F.silu(self.z_proj(x_BTW)))

    def directed(self, x_BGTK: Tensor) -> Tensor:
        """Return queries or keys in the form that heads use."""
        return x_BGTK

    def heads(
        self, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, step: Tensor, x: Tensor
    ) -> Heads:
        """Return the heads' inputs, from queries, keys, values, decays, steps and the block's input `BTW`."""
        raise NotImplementedError

    def gated(self, given_BHTV: Tensor, value_BHTV: Tensor, gate_BTx: Tensor) -> Tensor:
        """Return the output projection's input, `BTx`, from the heads' outputs, their values and the gate."""
        raise NotImplementedError

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Join values, gate and output channel by channel; tensors that heads share have other sizes."""
        out_BTW: Tensor = self.out_proj(self.v_proj(x_BTW) * self.z_proj(x_BTW))
        return out_BTW

    def _convolution(self, part: str) -> Tensor:
        """Return the weights of the whole convolution, or its biases."""
        modules = [self.get_submodule(f"{letter}_conv") for letter in self.spec.streams]
        return torch.cat(tuple(module.get_parameter(part) for module in modules))


class GatedDeltaNetBlock(LinearAttentionBlock):
    """Linear attention by the gated delta rule; see `GatedDeltaNet`."""

    spec: GatedDeltaNet
    b_proj: nn.Module

    def directed(self, x_BGTK: Tensor) -> Tensor:
        """Return queries or keys divided by their lengths."""
        return x_BGTK * (x_BGTK.square().sum(-1, keepdim=True) + EPS).rsqrt()

    def heads(
        self, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, step: Tensor, x: Tensor
    ) -> Heads:
        """Return them with the rates at which matrices are corrected."""
        rate_BHT = self.b_proj(x).float().sigmoid().transpose(1, 2)
        return Heads(query * self.spec.key_dim**-0.5, key, value, decay, rate_BHT)

    def gated(self, given_BHTV: Tensor, value_BHTV: Tensor, gate_BTx: Tensor) -> Tensor:
        """Normalise each head's output, then multiply it by the gate."""
        normed_BTHV: Tensor = self.norm(given_BHTV.transpose(1, 2).to(self.norm.weight.dtype))
        return normed_BTHV.flatten(2) * gate_BTx


class Mamba2Block(LinearAttentionBlock):
    """A selective state space model; see `Mamba2`."""

    spec: Mamba2
    D: nn.Parameter

    def heads(
        self, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, step: Tensor, x: Tensor
    ) -> Heads:
        """Return them with values times their steps."""
        return Heads(query, key, value * step[..., None], decay, None)

    def gated(self, given_BHTV: Tensor, value_BHTV: Tensor, gate_BTx: Tensor) -> Tensor:
        """Add the values themselves, multiply by the gate, and normalise the heads of each key head."""
        given_BHTV = given_BHTV + self.D.float()[:, None, None] * value_BHTV
        gated_BTx = given_BHTV.transpose(1, 2).flatten(2).to(gate_BTx.dtype) * gate_BTx
        if not self.spec.normalised:
            return gated_BTx
        grouped = gated_BTx.unflatten(-1, (self.spec.key_heads, -1))
        return F.rms_norm(grouped, grouped.shape[-1:], eps=self.spec.eps).flatten(2) * self.norm.weight
