"""How attention tells tokens apart, as data: rotary positions, the ways to scale them, and distances."""

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

    The short factors hold for all positions of a text that is no longer than
    `original_max_position_embeddings`, the long ones for all positions of a longer one.
    """

    kind: Literal["longrope"] = "longrope"
    short_factor: tuple[Positive, ...]
    long_factor: tuple[Positive, ...]
    original_max_position_embeddings: Count
    attention_factor: Positive
    """On cosines and sines."""


class ProportionalScaling(Part):
    """Turns a share of the pairs, the fastest, as fast as if all were turned; the others stay (Gemma 4)."""

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
    """The head's first channels, which are turned; None for all."""

    def check_factors(self, pairs: int) -> None:
        """Refuse factors that are not one for each turned pair of channels.

        Raises:
            ValueError: there are more or fewer.
        """
        if isinstance(self.scaling, LongRopeScaling):
            for name in ("short_factor", "long_factor"):
                if (count := len(getattr(self.scaling, name))) != pairs:
                    raise ValueError(f"rope.scaling.{name} has {count} numbers for {pairs} turned pairs")

    def parameters(self) -> dict[str, Any]:
        """Return it as transformers' `rope_parameters`; other keys without a value are left out."""
        found: dict[str, Any] = {"rope_type": "default", "rope_theta": self.theta}
        if self.scaling is not None:
            values = self.scaling.model_dump(exclude={"kind"})
            # transformers wants the key `factor`, and takes the lengths' ratio where it is null.
            found |= {key: value for key, value in values.items() if value is not None or key == "factor"}
            found["rope_type"] = self.scaling.kind
        return found


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
