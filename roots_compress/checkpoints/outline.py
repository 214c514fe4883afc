"""The widths of a model, known from its files, so that a cut is refused before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roots_compress.checkpoints.inspect import SourceInfo
from roots_compress.models.version1 import fields_of

WIDTHS = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


@dataclass(frozen=True)
class Outline:
    """The widths that pruning can change."""

    layers: Sequence[Mapping[str, int]]
    """Of each layer: query heads, key/value heads and MLP channels, under the names in a ROOTS config."""
    hidden_size: int
    """Of the residual stream."""


def outline_of(source: SourceInfo) -> Outline | None:
    """Return a checkpoint's widths.

    None where its files do not say them as they should: loading the model will tell what is wrong with them.
    """
    fields = fields_of(source.spec)
    layers = [{key: layer[key] for key in WIDTHS} for layer in fields["layers"]]
    return Outline(layers, fields["hidden_size"]) if layers else None
