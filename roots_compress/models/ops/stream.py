"""The residual stream as data: what it begins with, and the norms of it."""

from __future__ import annotations

from typing import Literal

from roots_compress.models.ops.base import Count, Part, Positive


class Norm(Part):
    """A normalisation over the last axis."""

    kind: Literal["rms_norm", "layer_norm"] = "rms_norm"
    eps: Positive = 1e-6
    bias: bool = True
    """Whether a `layer_norm` has one beside its gain; an `rms_norm` has none."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return ("weight", "bias") if self.kind == "layer_norm" and self.bias else ("weight",)

    def parameters(self, width: int) -> int:
        """Return how many numbers it holds."""
        return width * len(self.parts)


class LayerInputs(Part):
    """Per-layer embeddings: vectors of each token that layers read, one for each layer."""

    channels: Count
    """For each layer."""
    eps: Positive = 1e-6
    """Of the norm of the part that is made of the stream's beginning."""


class Embeddings(Part):
    """What a stack begins with: tokens, and positions and token types where they are learned.

    An encoder and a decoder share the tokens' table. Each has a table of positions, and a norm, of its own.
    """

    vocabulary: Count
    width: Count
    """Of the residual stream."""
    tables: Count | None = None
    """Channels of the tables, where a projection takes them to the width of the stream; None: the width."""
    scale: Positive = 1.0
    """Factor on the token embeddings."""
    positions: Count | None = None
    """Rows of learned positions; None where there are none."""
    token_types: Count | None = None
    norm: Norm | None = None
    """Of the sum of the tables' rows, before the projection."""
    layer_inputs: LayerInputs | None = None

    @property
    def table_width(self) -> int:
        """Channels of the tables."""
        return self.tables or self.width

    @property
    def parameters(self) -> int:
        """Numbers in what a stack begins with, without the tokens' table."""
        rows = (self.positions or 0) + (self.token_types or 0)
        norm = 0 if self.norm is None else self.norm.parameters(self.table_width)
        projection = 0 if self.tables is None else self.width * (self.tables + 1)
        return rows * self.table_width + norm + projection
