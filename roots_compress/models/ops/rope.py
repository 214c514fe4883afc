"""Rotary positions as data, and the ways to scale them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from roots_compress.models.ops.base import Count, Part, Positive


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
