"""What bounds the use of a model: known from its files, so that a run is refused before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from roots_compress.errors import InputError
from roots_compress.models.spec import ModelSpec


@dataclass(frozen=True)
class Limits:
    """What bounds the use of a model, so far as its files tell."""

    max_context: int | None
    """Tokens that it can hold; None where the files do not say it as they should."""
    fusible: bool | None
    """Whether ONNX Runtime's fused attention can express its own; None where the files do not say it."""


def is_fusible(spec: ModelSpec) -> bool:
    """Return whether `GroupQueryAttention` can express a model's attention, in all of its layers.

    It takes causal self-attention over heads whose size is a multiple of 8, and gives rotary positions to
    multiples of 16 only, whole heads of them.
    """
    return all(
        attention.source == "self"
        and attention.causal
        and attention.sparse is None
        and attention.head_dim % (8 if attention.rope is None else 16) == 0
        for attention in spec.attentions()
    )


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
            "a multiple of 16 (8 where positions are learned)",
            where=where,
            remedy="Set `cache: float`, or leave out --int8-cache.",
        )
