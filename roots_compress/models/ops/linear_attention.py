"""Linear attention as data: heads that summarise all earlier tokens in one matrix each."""

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


class LinearAttention(OpSpec):
    """The common part of Gated DeltaNet and Mamba-2.

    Queries, keys and values go through a causal depthwise convolution and SiLU. A head's
    matrix decays with each token, and the token's value is written into it under the token's key.
    """

    group: ClassVar[str] = "linear attention"
    module: ClassVar[str] = "linear_attn"
    keeps: ClassVar[str] = "linear_attention"
    segments: ClassVar[tuple[tuple[str, ...], ...]]
    """The projections of the block's input, by the letters of their names. Those of one segment go through
    the convolution, side by side; z is the gate."""
    vectors: ClassVar[tuple[str, ...]]
    """Parameters with one number for each value head."""
    key_heads: Count
    value_heads: Count
    """Each has a matrix; each key head serves equally many consecutive value heads."""
    key_dim: Count
    value_dim: Count
    kernel: Annotated[int, Field(ge=2, le=LARGEST)]
    """Tokens that an output of the convolution depends on, its own included."""
    bias: bool = False
    """Of the convolution."""
    eps: Positive = 1e-6
    """Epsilon of the norm of the heads' outputs."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.value_heads % self.key_heads:
            raise ValueError(f"{self.key_heads} key heads do not divide {self.value_heads} value heads")
        return self

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
    def streams(self) -> tuple[str, ...]:
        """The letters of queries, keys and values, in the convolution's order."""
        return next(segment for segment in self.segments if len(segment) > 1)

    @property
    def convolved(self) -> tuple[int, ...]:
        """Channels of each of them."""
        return tuple(map(self.rows, self.streams))

    @property
    def normed(self) -> int:
        """Size of the norm's gain; 0 if there is none."""
        raise NotImplementedError

    def rows(self, letter: str) -> int:
        """Return the outputs of a projection."""
        return {"q": self.keys, "k": self.keys, "v": self.values, "z": self.values}.get(
            letter, self.value_heads
        )

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        letters = [letter for segment in self.segments for letter in segment]
        return {f"{letter}_proj": Matrix(self.rows(letter), width, False) for letter in letters} | {
            "out_proj": Matrix(width, self.values, False)
        }

    def axes(self) -> tuple[Axis, ...]:
        """Return key heads, each with its value heads, and the value heads of all key heads alike."""

        def convolved(letter: str, size: int) -> tuple[Member, ...]:
            names = (f"{letter}_conv.weight", *((f"{letter}_conv.bias",) if self.bias else ()))
            return tuple(Member(name, 0, size) for name in names)

        def values(heads: int) -> tuple[Member, ...]:
            size = heads * self.value_dim
            return (
                *(Member(f"{letter}_proj.weight", 0, size) for letter in "vz"),
                *(Member(f"{name}.weight", 0, heads, traced=False) for name in self.scalars),
                *convolved("v", size),
                *(Member(name, 0, heads) for name in self.vectors),
                *((Member("norm.weight", 0, size),) if self.normed == self.values else ()),
                Member("out_proj.weight", 1, size),
            )

        keys = (
            *(Member(f"{letter}_proj.weight", 0, self.key_dim, traced=False) for letter in "qk"),
            *(each for letter in "qk" for each in convolved(letter, self.key_dim)),
        )
        return (
            Axis("key_heads", self.key_heads, (*keys, *values(self.shared)), "out_proj"),
            Axis("value_heads", self.value_heads, values(1), "out_proj", groups=self.key_heads),
        )

    def states(self, layer: int) -> tuple[State, ...]:
        """Return the last inputs of the convolution, and the heads' matrices."""
        past, present = f"past_key_values.{layer}.", f"present.{layer}."
        inputs = (sum(self.convolved), self.kernel - 1)
        matrices = (self.value_heads, self.key_dim, self.value_dim)
        return (
            State(f"{past}conv_state", f"{present}conv_state", inputs),
            State(f"{past}recurrent_state", f"{present}recurrent_state", matrices, float32=True),
        )

    def inputs(self) -> tuple[Input, ...]:
        readers = tuple(f"{letter}_proj" for segment in self.segments for letter in segment)
        return (Input(readers, of_stream=True), Input(("out_proj",), writes=True))

    def parameters(self, width: int) -> int:
        convolution = sum(self.convolved) * (self.kernel + self.bias)
        return super().parameters(width) + convolution + len(self.vectors) * self.value_heads + self.normed

    def cut(self, axis: str, units: int) -> LinearAttention:
        if axis == "key_heads":
            return changed(self, key_heads=units, value_heads=units * self.shared)
        assert axis == "value_heads", axis
        return changed(self, value_heads=units)

    def form(self) -> tuple[Hashable, ...]:
        return (self.kind, self.key_dim, self.value_dim, self.kernel, self.bias)


class GatedDeltaNet(LinearAttention):
    """The gated delta rule (Yang et al. 2025, "Gated Delta Networks", arXiv:2412.06464).

    It writes the difference from the value that the matrix holds under the key. Queries and keys are divided
    by their lengths. Each head's output is normalised, then multiplied by the SiLU of z.
    """

    kind: Literal["gated_delta_net"] = "gated_delta_net"
    scalars: ClassVar[tuple[str, ...]] = ("b_proj", "a_proj")
    segments: ClassVar[tuple[tuple[str, ...], ...]] = (("q", "k", "v"), ("z",), ("b",), ("a",))
    vectors: ClassVar[tuple[str, ...]] = ("A_log", "dt_bias")

    @property
    def normed(self) -> int:
        """The heads share one gain."""
        return self.value_dim


class Mamba2(LinearAttention):
    """A selective state space model (Dao and Gu 2024, "Transformers are SSMs", arXiv:2405.21060).

    In that paper's duality queries, keys and values are C, B and x, and key heads are groups. The outputs of
    all heads of a group are multiplied by the SiLU of z, then normalised together.
    """

    kind: Literal["mamba2"] = "mamba2"
    scalars: ClassVar[tuple[str, ...]] = ("a_proj",)
    segments: ClassVar[tuple[tuple[str, ...], ...]] = (("z",), ("v", "k", "q"), ("a",))
    vectors: ClassVar[tuple[str, ...]] = ("A_log", "dt_bias", "D")
    normalised: bool = True
    """Whether there is such a norm."""

    @property
    def normed(self) -> int:
        """Each channel has a gain."""
        return self.values if self.normalised else 0

    def form(self) -> tuple[Hashable, ...]:
        return (*super().form(), self.normalised)
