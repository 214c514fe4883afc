"""Gated DeltaNet as data: linear attention whose memory is a matrix for each head."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.models.ops.base import (
    LARGEST,
    Axis,
    Count,
    Input,
    Matrix,
    Member,
    OpSpec,
    Positive,
    State,
    changed,
)

READERS = ("q_proj", "k_proj", "v_proj", "z_proj", "b_proj", "a_proj")
CONVOLVED = ("q", "k", "v")


class GatedDeltaNet(OpSpec):
    """Linear attention by the gated delta rule (Yang et al. 2025, "Gated Delta Networks", arXiv:2412.06464).

    Queries, keys and values go through a causal convolution of each channel by itself, and SiLU. Queries and
    keys of each head are then normalised. What a head reads is normalised and multiplied by the SiLU of z.
    """

    kind: Literal["gated_delta_net"] = "gated_delta_net"
    group: ClassVar[str] = "linear attention"
    keeps: ClassVar[str] = "linear_attention"
    scalars: ClassVar[tuple[str, ...]] = ("b_proj", "a_proj")
    key_heads: Count
    value_heads: Count
    """Each has a state; equally many, one after another, read the keys and queries of each key head."""
    key_dim: Count
    value_dim: Count
    kernel: Annotated[int, Field(ge=2, le=LARGEST)]
    """Tokens that an output of the convolution is made of, its own included."""
    eps: Positive = 1e-6
    """Of the norm of what heads read."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.value_heads % self.key_heads:
            raise ValueError(f"{self.key_heads} key heads do not divide {self.value_heads} value heads")
        return self

    @property
    def name(self) -> str:
        """The block's name within its layer, as tensors have it."""
        return "linear_attn"

    @property
    def shared(self) -> int:
        """Value heads of each key head."""
        return self.value_heads // self.key_heads

    @property
    def keys(self) -> int:
        """Channels of all keys, and of all queries."""
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        """Channels of all values."""
        return self.value_heads * self.value_dim

    @property
    def convolved(self) -> tuple[int, int, int]:
        """Channels of queries, keys and values."""
        return (self.keys, self.keys, self.values)

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        """Return queries, keys, values, gate, rates of writing, decays, and the output projection."""
        rows = (*self.convolved, self.values, self.value_heads, self.value_heads)
        return {name: Matrix(count, width, False) for name, count in zip(READERS, rows, strict=True)} | {
            "out_proj": Matrix(width, self.values, False)
        }

    def axes(self) -> tuple[Axis, ...]:
        """Return key heads, each with its value heads, and the value heads of all key heads alike."""
        keys = tuple(
            Member(f"{name}.weight", 0, self.key_dim, traced=False)
            for name in ("q_proj", "k_proj", "q_conv", "k_conv")
        )

        def values(heads: int) -> tuple[Member, ...]:
            return (
                *(Member(f"{name}.weight", 0, heads * self.value_dim) for name in ("v_proj", "z_proj")),
                *(Member(f"{name}.weight", 0, heads, traced=False) for name in self.scalars),
                Member("v_conv.weight", 0, heads * self.value_dim),
                *(Member(name, 0, heads) for name in ("A_log", "dt_bias")),
                Member("out_proj.weight", 1, heads * self.value_dim),
            )

        return (
            Axis("key_heads", self.key_heads, (*keys, *values(self.shared)), "out_proj"),
            Axis("value_heads", self.value_heads, values(1), "out_proj", groups=self.key_heads),
        )

    def states(self, layer: int) -> tuple[State, ...]:
        """Return the last inputs of the convolution, and the heads' matrices."""
        shapes = {
            "conv_state": (sum(self.convolved), self.kernel - 1),
            "recurrent_state": (self.value_heads, self.key_dim, self.value_dim),
        }
        return tuple(
            State(f"past_key_values.{layer}.{name}", f"present.{layer}.{name}", shape)
            for name, shape in shapes.items()
        )

    def inputs(self) -> tuple[Input, ...]:
        """Return what the projections read, and what the output projection does."""
        return (Input(READERS, of_stream=True), Input(("out_proj",), writes=True))

    def parameters(self, width: int) -> int:
        """Return how many numbers it holds: those of convolution, decays and norm among them."""
        return (
            super().parameters(width)
            + sum(self.convolved) * self.kernel
            + 2 * self.value_heads
            + self.value_dim
        )

    def cut(self, axis: str, units: int) -> GatedDeltaNet:
        """Return it with so many key heads, each as it is, or so many value heads in all."""
        if axis == "key_heads":
            return changed(self, key_heads=units, value_heads=units * self.shared)
        assert axis == "value_heads", axis
        return changed(self, value_heads=units)

    def form(self) -> tuple[Hashable, ...]:
        """Return the sizes of the heads, and the length of the kernel."""
        return (self.kind, self.key_dim, self.value_dim, self.kernel)
