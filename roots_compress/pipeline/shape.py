"""A model's sizes along its axes, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass

from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.linear_attention import LinearAttention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

Range = tuple[int, int]
"""The smallest and the largest value over the layers."""


@dataclass(frozen=True)
class Shape:
    """A model's sizes along its axes; None for kinds of blocks that it does not have."""

    layers: tuple[int, ...]
    """Layers of each stack, in running order."""
    width: int
    """Width of the residual stream."""
    vocabulary: int
    positions: int
    heads: Range | None = None
    kv_heads: Range | None = None
    head_dim: Range | None = None
    channels: Range | None = None
    """Channels of feed-forward blocks, or of each expert."""
    experts: Range | None = None
    key_heads: Range | None = None
    """Of linear attention."""
    value_heads: Range | None = None
    """Of linear attention."""
    conv_channels: Range | None = None
    """Channels of short convolutions."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Shape:
        """Return the shape of a model."""
        ops = [op for _, op in spec.blocks()]
        attentions = [op for op in ops if isinstance(op, Attention)]
        linear = [op for op in ops if isinstance(op, LinearAttention)]
        return cls(
            layers=tuple(len(stack.layers) for stack in spec.running),
            width=spec.width,
            vocabulary=spec.embeddings.vocabulary,
            positions=spec.max_positions,
            heads=_range([op.heads for op in attentions]),
            kv_heads=_range([op.kv_heads for op in attentions]),
            head_dim=_range([op.head_dim for op in attentions]),
            channels=_range([op.channels for op in ops if isinstance(op, Mlp | Moe)]),
            experts=_range([op.experts for op in ops if isinstance(op, Moe)]),
            key_heads=_range([op.key_heads for op in linear]),
            value_heads=_range([op.value_heads for op in linear]),
            conv_channels=_range([op.channels for op in ops if isinstance(op, ShortConv)]),
        )


def _range(values: list[int]) -> Range | None:
    return (min(values), max(values)) if values else None
