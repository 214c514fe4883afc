"""A gated short convolution as data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from roots_compress.models.ops.base import (
    LARGEST,
    Axis,
    Count,
    Input,
    Matrix,
    Member,
    OpSpec,
    State,
    changed,
    weight_and_bias,
)

READERS = ("b_proj", "c_proj", "x_proj")


class ShortConv(OpSpec):
    """A causal depthwise convolution between two gates: `out(c(x) * conv(b(x) * x(x)))`.

    LFM2 (Liquid AI 2025, arXiv:2511.23404), whose names b and c the gates have.
    """

    kind: Literal["short_conv"] = "short_conv"
    group: ClassVar[str] = "convolution"
    module: ClassVar[str] = "conv"
    keeps: ClassVar[str] = "conv"
    channels: Count
    kernel: Annotated[int, Field(ge=2, le=LARGEST)]
    """Tokens that an output depends on, its own included."""
    bias: bool = False
    """Of the linear layers, and of the convolution."""

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        reader = Matrix(self.channels, width, self.bias)
        return dict.fromkeys(READERS, reader) | {"out_proj": Matrix(width, self.channels, self.bias)}

    def axes(self) -> tuple[Axis, ...]:
        rows = [weight_and_bias(name, 1, bias=self.bias) for name in (*READERS, "conv")]
        members = (*(member for each in rows for member in each), Member("out_proj.weight", 1, 1))
        return (Axis("conv_channels", self.channels, members, "out_proj"),)

    def states(self, layer: int) -> tuple[State, ...]:
        return (State(f"past_conv.{layer}", f"present_conv.{layer}", (self.channels, self.kernel - 1)),)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(READERS, of_stream=True), Input(("out_proj",), ("c_proj",), writes=True))

    def parameters(self, width: int) -> int:
        return super().parameters(width) + self.channels * (self.kernel + self.bias)

    def cut(self, axis: str, units: int) -> ShortConv:
        assert axis == "conv_channels", axis
        return changed(self, channels=units)

    def form(self) -> tuple[Hashable, ...]:
        return (self.kind, self.kernel)
