"""Positions as data: rotary positions, their scalings, and relative distances."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from roots_compress.models.ops.base import LARGEST, Count, Part, Positive


class LinearScaling(Part):
    """Positions divided by a factor."""

    kind: Literal["linear"] = "linear"
    factor: Positive


class Llama3Scaling(Part):
    """Low frequencies divided by a factor, high ones kept (Llama 3.1)."""

    kind: Literal["llama3"] = "llama3"
    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Positive


class YarnScaling(Part):
    """YaRN (Peng et al. 2023, arXiv:2309.00071), its keys as transformers names them."""

    kind: Literal["yarn"] = "yarn"
    factor: Positive | None = None
    """None: the context over the original one."""
    original_max_position_embeddings: Positive | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    mscale: Positive | None = None
    mscale_all_dim: Positive | None = None
    truncate: bool | None = True


class LongRopeScaling(Part):
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753): a factor on each frequency's wavelength.

    The short factors apply to all positions of a text of at most `original_max_position_embeddings` tokens,
    the long ones to all positions of a longer one.
    """

    kind: Literal["longrope"] = "longrope"
    short_factor: tuple[Positive, ...]
    long_factor: tuple[Positive, ...]
    original_max_position_embeddings: Count
    attention_factor: Positive
    """On cosines and sines."""


class ProportionalScaling(Part):
    """Rotates only a share of the pairs, the fastest, at their usual frequencies (Gemma 4)."""

    kind: Literal["proportional"] = "proportional"
    partial_rotary_factor: Positive = 1.0
    """The share."""


Scaling = Annotated[
    LinearScaling | Llama3Scaling | YarnScaling | LongRopeScaling | ProportionalScaling,
    Field(discriminator="kind"),
]


class Rope(Part):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864) of one attention."""

    theta: Positive = 10000.0
    scaling: Scaling | None = None
    rotary_dim: Count | None = None
    """The number of the head's first channels that are rotated; None for all."""

    def check_factors(self, pairs: int) -> None:
        """Refuse factors unless there is one for each rotated pair of channels.

        Raises:
            ValueError: there are more or fewer.
        """
        if isinstance(self.scaling, LongRopeScaling):
            for name in ("short_factor", "long_factor"):
                if (count := len(getattr(self.scaling, name))) != pairs:
                    raise ValueError(f"rope.scaling.{name} has {count} numbers for {pairs} turned pairs")

    def parameters(self) -> dict[str, Any]:
        """Return transformers' `rope_parameters`; other keys without a value are left out."""
        found: dict[str, Any] = {"rope_type": "default", "rope_theta": self.theta}
        if self.scaling is not None:
            values = self.scaling.model_dump(exclude={"kind"})
            # transformers requires the key `factor`, and uses the ratio of the lengths if it is null.
            found |= {key: value for key, value in values.items() if value is not None or key == "factor"}
            found["rope_type"] = self.scaling.kind
        return found


class Relative(Part):
    """A learned bias on the scores by the distance of key and query (Raffel et al. 2020, T5).

    Each head has a number for each bucket of distances: the first half of the buckets hold one distance each,
        the others grow logarithmically. Attention that is not causal uses half of the buckets for keys after
        the query.
    """

    buckets: Annotated[int, Field(ge=4, le=LARGEST)] = 32
    max_distance: Count = 128
    """Distances from here on are in the last bucket."""


class Disentangled(Part):
    """Products of content and distance, added to the scores (He et al. 2021, arXiv:2006.03654, DeBERTa).

    Each head has a vector for each row of distances: some are multiplied with queries, by the distance of the
        key, and others with keys, by the distance of the query. Both have the scores' factor.
    """

    rows: Annotated[int, Field(ge=4, le=LARGEST)]
    """Rows of a table; half of them are for keys after the query."""
    max_distance: Count | None = None
    """Distances up to a quarter of the rows have one row each; then rows grow logarithmically, up to this
    distance. None: each distance has its own row, and larger ones use the last."""
    queries: bool = True
    """Whether queries are multiplied with distances (content to position)."""
    keys: bool = True
    """Whether keys are (position to content)."""

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
