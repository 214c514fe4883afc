"""A stack of layers as data."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Self

from pydantic import model_validator

from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import Part
from roots_compress.models.ops.stream import Norm
from roots_compress.models.ops.sublayer import Sublayer

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
        """Yield each layer that takes keys and values, and the one that it takes them of."""
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
        """Numbers of the layers whose keys and values others take."""
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
