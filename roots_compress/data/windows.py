"""Token windows: what training, calibration and evaluation read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roots_compress.configs.base import LEAST_BLOCK_SIZE
from roots_compress.errors import Key, Text

IGNORED_LABEL = -100


def or_shorter(key: Key, tokens: int) -> str:
    """Return the advice to shorten windows to what a text fills; nothing where that is no window."""
    return Text(", or set ", key, f" to {tokens} or less") if tokens >= LEAST_BLOCK_SIZE else ""


@dataclass(frozen=True)
class PackedWindows:
    """Fixed windows of packed documents; N windows of T tokens."""

    input_ids: NDArray[np.int64]
    """`(N, T)`."""
    labels: NDArray[np.int64]
    """`(N, T)`: the token itself, or -100 where unscored: prompts, the first of a document or window."""
    segment_ids: NDArray[np.int64]
    """`(N, T)`: number of the document within its window; tokens attend within their document only."""

    def __getitem__(self, chosen: slice | NDArray[np.bool_ | np.int64]) -> PackedWindows:
        """Return some of the windows."""
        return PackedWindows(self.input_ids[chosen], self.labels[chosen], self.segment_ids[chosen])

    def beginning(self, tokens: int) -> PackedWindows:
        """Return the windows cut off after so many tokens; shorter ones stay as they are."""
        first = np.s_[:, :tokens]
        return PackedWindows(self.input_ids[first], self.labels[first], self.segment_ids[first])


@dataclass(frozen=True)
class EvaluationWindows:
    """Held-out windows for perplexity; every token after a window's first is scored exactly once.

    Where the tokenizer adds BOS to a text, every window opens with it. Where it adds none, a window opens
    with the token before its own in the text, which it does not score.
    """

    input_ids: NDArray[np.int64]
    """`(N, T)`."""
    bos: bool
    text_bytes: int
    """UTF-8 bytes of the scored tokens' text; a character counts with the token that begins it."""
    text_sha256: str
    tokenizer_sha256: str

    @property
    def scored_tokens(self) -> int:
        """Tokens whose probability enters the perplexity."""
        return int(self.input_ids[:, 1:].size)
