"""The residual stream as data: its embeddings and its norms."""

from __future__ import annotations

from typing import Literal

from roots_compress.models.ops.base import Count, Part, Positive


class Norm(Part):
    """A normalisation over the last axis."""

    kind: Literal["rms_norm", "layer_norm"] = "rms_norm"
    eps: Positive = 1e-6
    bias: bool = True
    """Whether a `layer_norm` has a bias; an `rms_norm` has none."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return ("weight", "bias") if self.kind == "layer_norm" and self.bias else ("weight",)

    def parameters(self, width: int) -> int:
        """Return the number of parameters."""
        return width * len(self.parts)


class LayerInputs(Part):
    """Per-layer embeddings: each token has one vector for each layer."""

    channels: Count
    """Channels for each layer."""
    eps: Positive = 1e-6
    """Epsilon of the norm of the part projected from the token embeddings."""


class Embeddings(Part):
    """The embeddings of a stack: tokens, and learned positions and token types, if any.

    An encoder and a decoder share the tokens' table; each has its own positions and norm.
    """

    vocabulary: Count
    width: Count
    """Width of the residual stream."""
    tables: Count | None = None
    """Channels of the tables, if a projection maps them to the width of the stream; None: the width."""
    scale: Positive = 1.0
    """Factor on the token embeddings."""
    positions: Count | None = None
    """Rows of learned positions; None if there are none."""
    token_types: Count | None = None
    norm: Norm | None = None
    """Norm of the sum of the tables' rows, before the projection."""
    layer_inputs: LayerInputs | None = None

    @property
    def table_width(self) -> int:
        """Channels of the tables."""
        return self.tables or self.width

    @property
    def parameters(self) -> int:
        """Parameters of the embeddings, without the tokens' table."""
        rows = (self.positions or 0) + (self.token_types or 0)
        norm = 0 if self.norm is None else self.norm.parameters(self.table_width)
        projection = 0 if self.tables is None else self.width * (self.tables + 1)
        return rows * self.table_width + norm + projection
