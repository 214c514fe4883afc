"""What a comparison of a graph with its checkpoint feeds to both.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ParityShape:
    """One comparison of a graph with its checkpoint: rows padded on the left, and a part that is decoded."""

    name: str
    batch: int
    tokens: int
    shortest: int
    """Tokens of the shortest row."""
    decoded: int = 0
    """Tokens at the end that a task with a cache feeds one at a time."""
    chosen: bool = False
    """Whether it is there for blocks of keys that scores choose: of two scores that are nearly equal,
    rounding may prefer either."""


@dataclass(frozen=True)
class ParityScript:
    """What a comparison feeds: a graph's inputs by name, each `(B, T)`, from optimum's generators."""

    shape: ParityShape
    inputs: Mapping[str, NDArray[np.int64]]

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """The tokens, `(B, T)`."""
        return self.inputs["input_ids"]

    @property
    def mask(self) -> NDArray[np.int64]:
        """1 where a token is, 0 at padding, `(B, T)`."""
        return self.inputs["attention_mask"]
