"""The block that reads its layer's per-layer embedding of a token.

Shape legend: B batch, T tokens, W hidden size, L layers, P channels for each layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context
from roots_compress.models.blocks.mlp import ACTIVATION_FUNCTIONS
from roots_compress.models.ops.layer_input import LayerInput


class LayerInputBlock(Block):
    """`out(act(gate(x)) * own)`."""

    spec: LayerInput
    gate_proj: nn.Module
    out_proj: nn.Module

    def contribution(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the block's contribution to the residual stream, `BTW`."""
        out_BTW: Tensor = self.out_proj(self.inner(x_BTW, context))
        return out_BTW

    def inner(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the last projection's input, `BTP`."""
        assert context.layer_inputs_BTLP is not None
        gate_BTP: Tensor = ACTIVATION_FUNCTIONS[self.spec.activation](self.gate_proj(x_BTW))
        return gate_BTP * context.layer_inputs_BTLP[:, :, self.layer_idx]

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Join the reader of the stream and its writer."""
        out_BTW: Tensor = self.out_proj(self.gate_proj(x_BTW))
        return out_BTW
