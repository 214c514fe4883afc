"""Feed-forward blocks as data: the usual one, and one that reads the token itself (Gemma 3n, Gemma 4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Literal

from roots_compress.models.ops.base import (
    Axis,
    Count,
    Input,
    Matrix,
    Member,
    OpSpec,
    changed,
    weight_and_bias,
)

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]
"""`relu2` is the square of ReLU (So et al. 2021, arXiv:2109.08668)."""
SCALABLE: tuple[Activation, ...] = ("relu",)
"""Activations f with f(x / s) = f(x) / s for positive s: a scale can be folded through them without a
gate."""


class Mlp(OpSpec):
    """A feed-forward block: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate."""

    kind: Literal["mlp"] = "mlp"
    group: ClassVar[str] = "MLP"
    channels: Count
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False
    weighed: bool = False
    """Whether its output is multiplied by the sigmoid of a projection of its input to one number, as in a
    shared expert."""
    shared: bool = False
    """Whether it is a shared expert without such a factor."""

    @property
    def name(self) -> str:
        return "shared_mlp" if self.weighed or self.shared else "mlp"

    @property
    def producers(self) -> tuple[str, ...]:
        """The linear layers that read the block's input."""
        return ("gate_proj", "up_proj") if self.gated else ("up_proj",)

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        up = Matrix(self.channels, width, self.bias)
        return dict.fromkeys(self.producers, up) | {"down_proj": Matrix(width, self.channels, self.bias)}

    def axes(self) -> tuple[Axis, ...]:
        rows = [weight_and_bias(name, 1, bias=self.bias) for name in self.producers]
        members = (*(member for each in rows for member in each), Member("down_proj.weight", 1, 1))
        return (Axis("mlp_channels", self.channels, members, "down_proj"),)

    def inputs(self) -> tuple[Input, ...]:
        """Return the input of gate and up, and that of down."""
        scalable = self.gated or self.activation in SCALABLE
        return (
            Input(self.producers, of_stream=True),
            Input(("down_proj",), ("up_proj",) if scalable else (), writes=True),
        )

    @property
    def readers(self) -> tuple[str, ...]:
        return (*super().readers, *(("router",) if self.weighed else ()))

    def parameters(self, width: int) -> int:
        return super().parameters(width) + width * self.weighed

    def cut(self, axis: str, units: int) -> Mlp:
        assert axis == "mlp_channels", axis
        return changed(self, channels=units)

    def form(self) -> tuple[Hashable, ...]:
        return (self.kind, self.activation, self.gated, self.weighed)


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
