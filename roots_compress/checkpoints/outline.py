"""The widths of a model, known from its files, so that a cut is refused before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roots_compress.checkpoints.inspect import SourceInfo

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
    try:
        fields = source.fields or source.config
        layers = [{key: layer[key] for key in WIDTHS} for layer in fields["layers"]]
        outline = Outline(layers, fields["hidden_size"])
    except (KeyError, TypeError):
        return None
    numbers = [outline.hidden_size, *(width for layer in layers for width in layer.values())]
    return outline if layers and all(type(number) is int and number > 0 for number in numbers) else None
