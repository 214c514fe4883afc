"""The feed-forward block, and the activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.ops.mlp import Activation, Mlp

ACTIVATION_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


class MlpBlock(Block):
    """`down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate."""

    spec: Mlp
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def contribution(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the block's contribution to the residual stream, `BTW`."""
        out_BTW: Tensor = self.down_proj(self.inner(x_BTW, context))
        return out_BTW

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return what the down projection reads, `BTC` for C channels."""
        up_BTC: Tensor = self.up_proj(x_BTW)
        activation = ACTIVATION_FUNCTIONS[self.spec.activation]
        return activation(self.gate_proj(x_BTW)) * up_BTC if self.spec.gated else activation(up_BTC)

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Return the block's own forward: a channel is a column of down and a row of up and of gate."""
        return self.contribution(x_BTW, Context({}, {}))
