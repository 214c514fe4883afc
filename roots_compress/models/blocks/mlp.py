"""Feed-forward blocks, and the activation functions.

Shape legend: B batch, T tokens, W hidden size, L layers, P channels for each layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.ops.mlp import Activation, LayerInput, Mlp

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
    last = "down_proj"

    def add_holders(self, config: Any) -> None:
        """Add the projection for its weight, if it is weighed."""
        if self.spec.weighed:
            self.router = nn.Linear(config.hidden_size, 1, bias=False)

    def contribution(self, x_BTW: Tensor, context: Context) -> Tensor:
        out_BTW = super().contribution(x_BTW, context)
        return out_BTW * self.router(x_BTW).sigmoid() if self.spec.weighed else out_BTW

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the down projection's input, `BTC` for C channels."""
        up_BTC: Tensor = self.up_proj(x_BTW)
        activation = ACTIVATION_FUNCTIONS[self.spec.activation]
        return activation(self.gate_proj(x_BTW)) * up_BTC if self.spec.gated else activation(up_BTC)

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Return the unweighed output: a channel is a column of down and a row of up and of gate."""
        out_BTW: Tensor = self.down_proj(self.inner(x_BTW, Context({}, {})))
        return out_BTW


class LayerInputBlock(Block):
    """`out(act(gate(x)) * own)`."""

    spec: LayerInput
    gate_proj: nn.Module
    out_proj: nn.Module

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the last projection's input, `BTP`."""
        assert context.layer_inputs_BTLP is not None
        gate_BTP: Tensor = ACTIVATION_FUNCTIONS[self.spec.activation](self.gate_proj(x_BTW))
        return gate_BTP * context.layer_inputs_BTLP[:, :, self.layer_idx]

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Join the reader of the stream and its writer."""
        out_BTW: Tensor = self.out_proj(self.gate_proj(x_BTW))
        return out_BTW
