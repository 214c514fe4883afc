"""Shapes of layers of attention and a feed-forward block, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roots_compress.models.spec import Layer
from roots_compress.stages.prune.plan import LayerTarget, narrowed
from roots_compress.stages.prune.sensitivity import BlockCosts, LayerCosts


def shape(kv_groups: int, queries: int, mlp_channels: int) -> LayerTarget:
    """Return what a layer is to keep; query heads are those of each key/value group."""
    return {
        "self_attn": {"kv_groups": kv_groups, "queries": queries},
        "mlp": {"mlp_channels": mlp_channels},
    }


def narrow(layer: Layer, kv_groups: int, queries: int, mlp_channels: int) -> Layer:
    """Return a layer that is cut so."""
    return narrowed(layer, shape(kv_groups, queries, mlp_channels))


def costs_of(attention: Mapping[Any, float], mlp: Mapping[int, float]) -> LayerCosts:
    """Return the costs of a layer by its key/value groups and query heads, and by its channels."""
    return {
        "self_attn": BlockCosts(("kv_groups", "queries"), dict(attention)),
        "mlp": BlockCosts(("mlp_channels",), {(width,): cost for width, cost in mlp.items()}),
    }
