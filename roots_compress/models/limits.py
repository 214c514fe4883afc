"""Limits of a model, read from its files, so that a run is refused before the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from roots_compress.errors import InputError
from roots_compress.models.ops.attention import Attention, BlockSparse, LongRopeScaling
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec


@dataclass(frozen=True)
class Limits:
    """Limits of a model, as far as they are known."""

    max_context: int | None
    """Tokens that it can hold; None if unknown."""
    fusible: bool | None
    """Whether ONNX Runtime's fused attention can express the model's; None if unknown."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Limits:
        """Return the limits of a model with this specification."""
        return cls(spec.max_positions, is_fusible(spec))


def is_fusible(spec: ModelSpec) -> bool:
    """Return whether `GroupQueryAttention` can express a model's attention, in all of its layers.

    It takes causal self-attention over heads whose size is a multiple of 8, and gives rotary positions to
    multiples of 16 of their channels only. An int8 cache that several layers read is not supported.
    """
    return all(_is_fusible(each) and each.sharing is None for each in spec.attentions())


def _is_fusible(attention: Attention) -> bool:
    plain = attention.source == "self" and attention.causal and attention.sparse is None
    return plain and attention.relative is None and attention.head_dim % 8 == 0 and attention.turned % 16 == 0


def is_compact(spec: ModelSpec) -> bool:
    """Return whether each step may write into a graph's caches in place: dense or block attention."""
    return all(
        _is_fusible(changed(each, sparse=None) if isinstance(each.sparse, BlockSparse) else each)
        for each in spec.attentions()
    )


def longrope_length(spec: ModelSpec) -> int | None:
    """Return the text length above which LongRoPE's long factors apply; None without LongRoPE."""
    scalings = (each.rope.scaling for each in spec.attentions() if each.rope is not None)
    longropes = (scaling for scaling in scalings if isinstance(scaling, LongRopeScaling))
    return min((scaling.original_max_position_embeddings for scaling in longropes), default=None)


def require_fusible(fusible: bool, where: str | None = None) -> None:
    """Refuse an int8 cache that the graph could not read.

    Args:
        fusible: whether the fused operator can express the model's attention.
        where: the recipe's key of the cache.

    Raises:
        InputError: it is not.
    """
    if not fusible:
        raise InputError(
            "this model's keys and values cannot be cached in int8: that takes dense attention over heads of "
            "a multiple of 16 (8 where positions are learned), and that no layers share them",
            where=where,
            remedy="Set `cache: float`, or leave out --int8-cache.",
        )
