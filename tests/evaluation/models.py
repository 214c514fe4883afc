"""Language models with known answers, and windows of tokens for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roots_compress.data.windows import EvaluationWindows
from roots_compress.runtime.protocol import Logits, Step, Tokens


class BigramModel:
    """The logits of a token are its row of a table `(V, V)`; the cache is how many tokens were read."""

    renewed_after: int | None = None

    def __init__(self, table_VV: NDArray[np.float32], max_context: int = 64) -> None:
        self.table_VV = table_VV.astype(np.float32)
        self.max_context = max_context
        self.batch_sizes: list[int] = []

    @property
    def vocab_size(self) -> int:
        return len(self.table_VV)

    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        self.batch_sizes.append(len(input_ids))
        return self.table_VV[input_ids]

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        return Step(self.table_VV[input_ids[:, -1]], input_ids.shape[1])

    def decode(self, token_ids: Tokens, cache: object) -> Step:
        assert isinstance(cache, int)
        assert cache < self.max_context
        return Step(self.table_VV[token_ids], cache + 1)


class UniformModel:
    """Gives every token the same logit."""

    max_context = 64
    renewed_after: int | None = None

    def __init__(self, vocab_size: int, level: float) -> None:
        self.vocab_size, self.level = vocab_size, level

    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        return np.full((*input_ids.shape, self.vocab_size), self.level, dtype=np.float32)

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        return Step(self.logits(input_ids[:, -1]), None)

    def decode(self, token_ids: Tokens, cache: object) -> Step:
        return Step(self.logits(token_ids), None)


def make_windows(input_ids: NDArray[np.int64], *, text_bytes: int = 100) -> EvaluationWindows:
    return EvaluationWindows(input_ids, True, text_bytes, text_sha256="text", tokenizer_sha256="tokenizer")


def random_windows(
    count: int = 5, tokens: int = 12, vocab_size: int = 7, *, text_bytes: int = 100, seed: int = 0
) -> EvaluationWindows:
    ids = np.random.default_rng(seed).integers(vocab_size, size=(count, tokens))
    return make_windows(ids, text_bytes=text_bytes)
