"""The inputs for a comparison of a graph with its checkpoint.

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
    """Whether it tests the choice of key blocks by scores: with nearly equal scores, rounding may choose
    either."""


@dataclass(frozen=True)
class ParityScript:
    """The inputs of a comparison: a graph's inputs by name, each `(B, T)`, from optimum's generators."""

    shape: ParityShape
    inputs: Mapping[str, NDArray[np.int64]]

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """The tokens, `(B, T)`."""
        return self.inputs["input_ids"]

    @property
    def mask(self) -> NDArray[np.int64]:
        """1 at tokens, 0 at padding, `(B, T)`."""
        return self.inputs["attention_mask"]
