"""What bounds the use of a model: known from its files, so that a run is refused before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from roots_compress.errors import InputError
from roots_compress.models.ops.attention import Attention, BlockSparse, LongRopeScaling
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec


@dataclass(frozen=True)
class Limits:
    """What bounds the use of a model, so far as it is known."""

    max_context: int | None
    """Tokens that it can hold; None where that is not known."""
    fusible: bool | None
    """Whether ONNX Runtime's fused attention can express its own; None where that is not known."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Limits:
        """Return what bounds a model of a specification."""
        return cls(spec.max_positions, is_fusible(spec))


def is_fusible(spec: ModelSpec) -> bool:
    """Return whether `GroupQueryAttention` can express a model's attention, in all of its layers.

    It takes causal self-attention over heads whose size is a multiple of 8, and gives rotary positions to
    multiples of 16 of their channels only. A cache in int8 that several layers read is not made.
    """
    return all(_is_fusible(each) and each.sharing is None for each in spec.attentions())


def _is_fusible(attention: Attention) -> bool:
    plain = attention.source == "self" and attention.causal and attention.sparse is None
    return plain and attention.relative is None and attention.head_dim % 8 == 0 and attention.turned % 16 == 0


def is_compact(spec: ModelSpec) -> bool:
    """Return whether a graph's caches may be buffers that each step writes into: dense or block attention."""
    return all(
        _is_fusible(changed(each, sparse=None) if isinstance(each.sparse, BlockSparse) else each)
        for each in spec.attentions()
    )


def longrope_length(spec: ModelSpec) -> int | None:
    """Return how long a text is by which LongRoPE's other factors hold; None where there is none."""
    scalings = (each.rope.scaling for each in spec.attentions() if each.rope is not None)
    longropes = (scaling for scaling in scalings if isinstance(scaling, LongRopeScaling))
    return min((scaling.original_max_position_embeddings for scaling in longropes), default=None)


def require_fusible(fusible: bool, where: str | None = None) -> None:
    """Refuse a cache in int8 where the graph could not read it.

    Args:
        fusible: whether the model's attention is.
        where: the recipe's key that asks for the cache.

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
