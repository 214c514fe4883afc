"""Specifications that version 1's fields do not reach: norms in other places, experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roots_compress.models.ops.attention import Attention, QkNorm
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec, Norm, Sublayer
from tests.tiny import tiny_config

NORM = Norm()
EXPERTS = Moe(experts=4, chosen=2, channels=24)


def spec_of(change: Callable[[Sublayer], Sublayer], **fields: Any) -> ModelSpec:
    """Return the specification of a tiny model, every sublayer of it changed."""
    spec = tiny_config(**fields).spec
    return spec.with_layers(tuple(tuple(map(change, layer)) for layer in spec.layers))


def with_projection_norms(sublayer: Sublayer) -> Sublayer:
    """Norm queries and keys over all heads at once."""
    if isinstance(sublayer.op, Attention):
        return changed(sublayer, op=changed(sublayer.op, qk_norm=QkNorm(over="projection")))
    return sublayer


def with_experts(sublayer: Sublayer) -> Sublayer:
    """Put a mixture of experts in the place of the feed-forward block."""
    return sublayer if isinstance(sublayer.op, Attention) else changed(sublayer, op=EXPERTS)


SPECS: dict[str, dict[str, Any]] = {
    "norms over the projection": {"spec": spec_of(with_projection_norms)},
    "norms of outputs": {"spec": spec_of(lambda each: changed(each, post_norm=NORM))},
    "norms of the stream": {
        "spec": spec_of(lambda each: changed(each, pre_norm=None, stream_norm=NORM), attention_bias=True)
    },
    "experts": {"spec": spec_of(with_experts)},
}
"""Arguments of `tiny_model`, by what is unlike other models."""
