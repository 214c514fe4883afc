"""A gated short convolution; its cache holds its last inputs.

Shape legend: B batch, T new tokens, S those and the cached ones before them, W hidden size, C channels,
K taps.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.ops.conv import ShortConv


class ShortConvBlock(Block):
    """A causal depthwise convolution between two gates."""

    spec: ShortConv
    b_proj: nn.Module
    c_proj: nn.Module
    x_proj: nn.Module
    out_proj: nn.Module

    def add_holders(self, config: Any) -> None:
        """Add the convolution."""
        channels = self.spec.channels
        self.conv = nn.Conv1d(channels, channels, self.spec.kernel, groups=channels, bias=self.spec.bias)

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the output projection's input, `BTC`."""
        gated_BTC = self.b_proj(x_BTW) * self.x_proj(x_BTW)
        out_BTC = causal_conv(gated_BTC, self.conv.weight, context, self.layer_idx)
        inner_BTC: Tensor = self.c_proj(x_BTW) * (
            out_BTC if self.conv.bias is None else out_BTC + self.conv.bias
        )
        return inner_BTC

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Join channels one by one, without the convolution, which torch-pruning does not trace."""
        out_BTW: Tensor = self.out_proj(self.b_proj(x_BTW) * self.x_proj(x_BTW) * self.c_proj(x_BTW))
        return out_BTW


def causal_conv(x_BTC: Tensor, weight_C1K: Tensor, context: Context, layer: int) -> Tensor:
    """Return a causal depthwise convolution, `BTC`, over the tokens of a document.

    Padding is skipped wherever it is: a token reads the tokens before it across padding.

    Args:
        x_BTC: its inputs, of which the cache keeps those of the last tokens.
        weight_C1K: its weights, that of the token itself last.
        layer: the block's index in the cache.
    """
    tokens, before = x_BTC.shape[1], weight_C1K.shape[-1] - 1
    seen_BCS, positions_BT = x_BTC.mT, context.positions_BT
    if context.cache is not None:
        seen_BCS = context.cache.update_conv_state(seen_BCS, layer, conv_kernel_size=before)
    seen_BSC = F.pad(seen_BCS, (tokens + before - seen_BCS.shape[-1], 0)).mT
    place_BT = None
    if context.valid_BT is not None:
        # Padding moves to the front, so that the last inputs of a row are those of its last tokens.
        order_BS = F.pad(context.valid_BT, (before, 0), value=True).long().argsort(dim=1, stable=True)
        place_BT = (order_BS.argsort(dim=1)[:, before:] - before).clamp(min=0)
        seen_BSC = seen_BSC.take_along_dim(order_BS[..., None], dim=1)
        if positions_BT is not None:
            positions_BT = F.pad(positions_BT, (before, 0)).take_along_dim(order_BS, dim=1)[:, before:]
        if context.cache is not None:
            kept: Any = context.cache.layers[layer]
            kept.conv_states[0] = seen_BSC.mT if kept.record_past else seen_BSC[:, tokens:].mT.clone()
    out_BTC = weight_C1K[:, 0, -1] * seen_BSC[:, before:]
    for age in range(1, before + 1):
        read_BTC = seen_BSC[:, before - age : before - age + tokens]
        if positions_BT is not None:
            read_BTC = read_BTC * (positions_BT >= age)[..., None]
        out_BTC = out_BTC + weight_C1K[:, 0, before - age] * read_BTC
    return out_BTC if place_BT is None else out_BTC.take_along_dim(place_BT[..., None], dim=1)
