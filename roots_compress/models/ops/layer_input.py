"""The block for per-layer embeddings as data (Gemma 3n, Gemma 4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Literal

from roots_compress.models.ops.base import Axis, Count, Input, Matrix, OpSpec
from roots_compress.models.ops.mlp import Activation


class LayerInput(OpSpec):
    """`out(act(gate(x)) * own)`, where `own` is the token's per-layer embedding for this layer."""

    kind: Literal["layer_input"] = "layer_input"
    group: ClassVar[str] = "MLP"
    module: ClassVar[str] = "layer_input"
    channels: Count
    activation: Activation = "gelu_tanh"

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        return {
            "gate_proj": Matrix(self.channels, width, False),
            "out_proj": Matrix(width, self.channels, False),
        }

    def axes(self) -> tuple[Axis, ...]:
        """Return none: one table holds the channels of all layers."""
        return ()

    def inputs(self) -> tuple[Input, ...]:
        return (Input(("gate_proj",), of_stream=True), Input(("out_proj",), writes=True))

    def form(self) -> tuple[Hashable, ...]:
        return (self.kind, self.channels, self.activation)
