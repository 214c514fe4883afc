"""A mixture of experts as data: a router and gated feed-forward experts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from roots_compress.models.ops.base import (
    Axis,
    Count,
    Input,
    Matrix,
    Member,
    OpSpec,
    Part,
    Positive,
    changed,
    weight_and_bias,
)
from roots_compress.models.ops.mlp import Activation

EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")
"""The linear layers of an expert."""


class Clamp(Part):
    """Bounds on the outputs of an expert's gate g and up u: `(u + 1) * g * sigmoid(alpha * g)` (gpt-oss)."""

    alpha: Positive = 1.702
    limit: Positive = 7.0
    """Upper bound of g, and bound of u on both sides."""


class Groups(Part):
    """Equal groups of consecutive experts; a token's experts come from the best `chosen` groups."""

    count: Count
    chosen: Count
    best: Count = 2
    """A group's score is the sum over this many of its best experts: 2 in DeepSeek-V3, 1 in DeepSeek-V2."""


class Moe(OpSpec):
    """Experts of equal widths; each token goes through the best `chosen` of them.

    The router's softmax is over all experts, in float32. Alternatively each expert has its own sigmoid, as in
    DeepSeek-V3 (arXiv:2412.19437), where a bias used only for the choice balances the load.
    """

    kind: Literal["moe"] = "moe"
    group: ClassVar[str] = "experts"
    experts: Count
    chosen: Count
    channels: Count
    """Of each expert."""
    activation: Activation = "silu"
    renormalise: bool = True
    """Whether the chosen experts' weights are divided by their sum."""
    scores: Literal["softmax", "sigmoid"] = "softmax"
    """Function on the router's outputs."""
    selection_bias: bool = False
    """Whether each expert has a bias that is added to its score for the choice, but not to its weight."""
    groups: Groups | None = None
    """None: all experts can be chosen."""
    least_sum: Positive | None = None
    """Lower bound of the sum; None: 1e-6 is added to a sum of sigmoids (LFM2)."""
    scale: Positive = 1.0
    """Factor on the chosen experts' weights."""
    bias: bool = False
    """Of the router, and of each expert's layers."""
    clamp: Clamp | None = None
    """None: `activation(g) * u`."""
    beside_mlp: bool = False
    """Whether its layer also has a feed-forward block, which is then named `mlp`."""

    @property
    def name(self) -> str:
        return "moe" if self.beside_mlp else "mlp"

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.chosen > self.experts:
            raise ValueError(f"{self.chosen} experts are chosen for a token, and there are {self.experts}")
        if self.clamp is not None and self.activation != "silu":
            raise ValueError("clamp is for experts whose activation is silu")
        if self.groups is not None:
            if self.groups.count < self.groups.chosen or self.experts % self.groups.count:
                raise ValueError(
                    f"{self.experts} experts do not make {self.groups.count} equal groups, of which "
                    f"{self.groups.chosen} are chosen"
                )
            if self.experts // self.groups.count < self._least:
                raise ValueError(
                    f"{self.experts} experts in {self.groups.count} groups are too few: groups have at least "
                    f"{self._least}"
                )
        return self

    @property
    def _groups(self) -> int:
        return 1 if self.groups is None else self.groups.count

    @property
    def _least(self) -> int:
        """The fewest experts of each group."""
        if self.groups is None:
            return self.chosen
        return max(self.groups.best, -(-self.chosen // self.groups.chosen))

    def names(self) -> Iterator[str]:
        """Yield the experts' names in the block, `experts.0` and so on."""
        return (f"experts.{number}" for number in range(self.experts))

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        """Return gate, up and down of each expert; the router is never quantized."""
        up, down = Matrix(self.channels, width, self.bias), Matrix(width, self.channels, self.bias)
        return {
            f"{expert}.{name}": matrix
            for expert in self.names()
            for name, matrix in zip(EXPERT_LAYERS, (up, up, down), strict=True)
        }

    def axes(self) -> tuple[Axis, ...]:
        """Return whole experts, and the channels of each; experts keep equally many, but different ones."""
        members = tuple(
            member
            for expert in self.names()
            for member in (
                *weight_and_bias(f"{expert}.gate_proj", 1, bias=self.bias),
                *weight_and_bias(f"{expert}.up_proj", 1, bias=self.bias),
                Member(f"{expert}.down_proj.weight", 1, 1),
            )
        )
        routes = weight_and_bias("router", 1, bias=self.bias)
        if self.selection_bias:
            routes = (*routes, Member("selection_bias", 0, 1))
        parts = tuple(f"{expert}.down_proj" for expert in self.names())
        return (
            Axis("experts", self.experts, routes, None, groups=self._groups, least=self._least),
            Axis("expert_channels", self.channels, members, None, parts=parts),
        )

    def inputs(self) -> tuple[Input, ...]:
        """Return the input of each expert's gate and up, which the router reads too, and that of its down."""
        share = self.chosen / self.experts
        return tuple(
            each
            for expert in self.names()
            for each in (
                Input((f"{expert}.gate_proj", f"{expert}.up_proj"), share=share),
                Input((f"{expert}.down_proj",), self._producers(expert), writes=True, share=share),
            )
        )

    def _producers(self, expert: str) -> tuple[str, ...]:
        """Return the layer into which a scale of an expert's last input can be folded, if any."""
        return (f"{expert}.up_proj",) if self.clamp is None else ()

    def parameters(self, width: int) -> int:
        return super().parameters(width) + self.experts * (width + self.bias)

    def cut(self, axis: str, units: int) -> Moe:
        return changed(self, **{{"experts": "experts", "expert_channels": "channels"}[axis]: units})

    def form(self) -> tuple[Hashable, ...]:
        chosen = (self.scores, self.selection_bias, self.groups, self.least_sum, self.scale)
        return (self.kind, self.activation, self.clamp, *chosen)

    @property
    def readers(self) -> tuple[str, ...]:
        return ("router", *(name for each in self.inputs() if not each.writes for name in each.consumers))
