"""What a language model is to the code that measures and serves it, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]


class Step(NamedTuple):
    """Logits of the newest tokens, `(B, V)`, and the cache that holds everything up to them."""

    logits: Logits
    cache: object


class Served(Protocol):
    """What is asked of any engine; all else is between a task and its engines."""

    @property
    def vocab_size(self) -> int:
        """The number of token ids that the model takes."""
        ...

    @property
    def max_context(self) -> int:
        """The most tokens that the model reads at once."""
        ...


class LanguageModel(Served, Protocol):
    """A causal language model with a KV cache. B batch, T tokens, V vocabulary.

    `attention_mask` is `(B, T)`, 0 at left padding; None where nothing is padded.
    """

    @property
    def renewed_after(self) -> int | None:
        """Tokens after which a text must be read anew from its start; None: it never must.

        LongRoPE turns all keys of a longer text by other factors than those that are cached.
        """
        ...

    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits of every position, `(B, T, V)`, without a cache."""
        ...

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        """Read a prompt into a new cache; return the logits of each row's last token."""
        ...

    def decode(self, token_ids: Tokens, cache: object) -> Step:
        """Append one token per row, `(B,)`; the cache passed in must not be used again."""
        ...


class BeamModel(LanguageModel, Protocol):
    """A language model whose cache can go on with other rows, as beam search needs it."""

    def reordered(self, cache: object, rows: NDArray[np.int64]) -> object:
        """Return a cache whose row i is row `rows[i]` of another, which must not be used again."""
        ...


class Writer(Served, Protocol):
    """What writes text for a prompt."""

    @property
    def continues(self) -> bool:
        """Whether its text goes on from the prompt's; else it answers it."""
        ...

    def begin(self, tokens: Sequence[int]) -> tuple[BeamModel, list[int]]:
        """Return a language model and the tokens that it goes on from, for those of a prompt.

        Raises:
            InputError: the prompt has no token or too many, or one that the model does not know.
        """
        ...


class Seq2SeqModel(Served, Protocol):
    """An encoder-decoder. When it has read sources, its decoder is a language model that answers them."""

    @property
    def start(self) -> int:
        """The token that each target begins with."""
        ...

    def read(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> BeamModel:
        """Return the decoder of these sources, one row each; its prompts have as many rows.

        Args:
            input_ids: `(B, S)`, padded on the right.
            attention_mask: `(B, S)`, 0 at padding; None where nothing is padded.

        Raises:
            InputError: there are more tokens than the model reads, or an id that it does not know.
        """
        ...
