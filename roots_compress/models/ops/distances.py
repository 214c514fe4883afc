"""What the distance of key and query adds to the scores of attention, as data."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from roots_compress.models.ops.base import LARGEST, Count, Part


class Relative(Part):
    """A learned addition to the scores by the distance of key and query (Raffel et al. 2020, T5).

    Each head has a number for each bucket of distances: one distance a bucket up to half of them, then
    buckets that grow with the logarithm. Attention that is not causal has half of the buckets for keys after
    the query.
    """

    buckets: Annotated[int, Field(ge=4, le=LARGEST)] = 32
    max_distance: Count = 128
    """From here on all distances are in the last bucket."""


class Disentangled(Part):
    """Products of content and distance, added to the scores (He et al. 2021, arXiv:2006.03654, DeBERTa).

    Each head has a vector for each row of distances: those that queries meet by the distance of the key, and
    those that keys meet by the distance of the query. Both share the factor of the scores.
    """

    rows: Annotated[int, Field(ge=4, le=LARGEST)]
    """Rows of a table, half of them for keys after the query."""
    max_distance: Count | None = None
    """Each distance has a row up to a quarter of the rows; then rows grow with the logarithm, up to this
    distance. None: each has its own, and those beyond the rows have the outermost."""
    queries: bool = True
    """Whether queries meet distances (content to position)."""
    keys: bool = True
    """Whether keys do (position to content)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.rows % 2:
            raise ValueError("disentangled.rows is odd: half of them are for keys after the query")
        if self.max_distance is not None and self.max_distance - 1 <= self.rows // 4:
            raise ValueError(f"disentangled.max_distance must be above {self.rows // 4 + 1}")
        if not (self.queries or self.keys):
            raise ValueError("disentangled needs queries or keys")
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables."""
        return ("query_distances",) * self.queries + ("key_distances",) * self.keys
