"""Layers as data: a block and the norms around it, and a stack of layers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import Part
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.linear_attention import GatedDeltaNet, Mamba2
from roots_compress.models.ops.mlp import LayerInput, Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stream import Embeddings as Embeddings
from roots_compress.models.ops.stream import Norm

Op = Annotated[
    Attention | ShortConv | GatedDeltaNet | Mamba2 | Mlp | Moe | LayerInput, Field(discriminator="kind")
]


class Sublayer(Part):
    """A block, and the norms around it."""

    op: Op
    pre_norm: Norm | None = None
    """Norm of the block's input."""
    post_norm: Norm | None = None
    """Norm of the block's output, before it is added to the stream."""
    joint_norm: Norm | None = None
    """Norm of the summed outputs of the block and the parallel ones before it, before the addition to the
    stream."""
    stream_norm: Norm | None = None
    """Norm of the stream after the addition."""
    stream_scale: bool = False
    """Whether the stream after the addition is multiplied by a stored number, which is not trained."""
    parallel: bool = False
    """Whether the next block of the layer reads the stream without this block's output."""
    shares_norm: bool = False
    """Whether it shares the `pre_norm` of the parallel block before it."""

    @model_validator(mode="after")
    def _adds_before_it_normalises(self) -> Self:
        if self.parallel and (self.joint_norm or self.stream_norm or self.stream_scale):
            raise ValueError(
                "a parallel block adds nothing to the stream itself, and has no joint_norm, stream_norm or "
                "stream_scale"
            )
        return self

    @property
    def name(self) -> str:
        """The block's name within its layer, as in tensors' names."""
        return self.op.name

    @property
    def is_pre_norm(self) -> bool:
        """Whether the block normalises its input, and nothing normalises the stream."""
        return self.pre_norm is not None and self.stream_norm is None

    def parameters(self, width: int) -> int:
        """Return the number of parameters of the block and its norms."""
        before = None if self.shares_norm else self.pre_norm
        norms = (before, self.post_norm, self.joint_norm, self.stream_norm)
        return self.op.parameters(width) + sum(norm.parameters(width) for norm in norms if norm is not None)


Layer = tuple[Sublayer, ...]


class Stack(Part):
    """Layers, and the norm after the last."""

    layers: tuple[Layer, ...]
    final_norm: Norm | None = None

    @model_validator(mode="after")
    def _keys_are_given(self) -> Self:
        for index, giver in self._givers():
            if giver is None:
                raise ValueError(
                    f"layers.{index} takes keys and values, and no layer before it gives any with its "
                    "window, heads and positions"
                )
        return self

    def _givers(self) -> Iterator[tuple[int, int | None]]:
        """Yield each layer that takes keys and values, and the one that gives them."""
        given: dict[Hashable, int] = {}
        for index, layer in enumerate(self.layers):
            for op in (each.op for each in layer):
                if not isinstance(op, Attention) or op.sharing is None:
                    continue
                if op.sharing == "gives":
                    given[op.keys] = index
                else:
                    yield index, given.get(op.keys)

    @property
    def needed(self) -> frozenset[int]:
        """Numbers of the layers whose keys and values other layers take."""
        return frozenset(giver for _, giver in self._givers() if giver is not None)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for index, layer in enumerate(self.layers):
            names = [sublayer.name for sublayer in layer]
            if len(set(names)) < len(names):
                raise ValueError(f"layers.{index} has two blocks of one name: {', '.join(names)}")
            if layer and layer[-1].parallel:
                raise ValueError(f"the last block of layers.{index} is parallel, and none is after it")
            for before, each in zip((None, *layer), layer, strict=False):
                if each.joint_norm is not None and (before is None or not before.parallel):
                    raise ValueError(f"{each.name} of layers.{index} has a joint_norm, and gives alone")
                if not each.shares_norm:
                    continue
                if before is None or not before.parallel or each.pre_norm is None:
                    raise ValueError(
                        f"{each.name} of layers.{index} shares the norm of the block before it, and that is "
                        "none that is parallel, or has no norm"
                    )
                if before.pre_norm != each.pre_norm:
                    raise ValueError(f"{each.name} of layers.{index} shares a norm that is not its pre_norm")
        return self
