"""Perplexity of a language model on held-out windows, whichever engine runs it.

Every token after a window's first is scored exactly once, by its probability given the tokens before it in
the window: natural logarithms, summed in float64.

Shape legend: N windows, B windows at a time, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from roots_compress.errors import InputError, StageError, Text, recipe_key
from roots_compress.runtime.protocol import LanguageModel, Logits, Tokens
from roots_compress.tasks.figures.predictions import Predictions, Scored, score

if TYPE_CHECKING:
    from roots_compress.data.conversations import Responses
    from roots_compress.data.windows import EvaluationWindows

LOGITS_BYTES = 1 << 27
"""Logits of one model held at a time, unless a single window has more."""
STARTS = (1, *(1 << power for power in range(6, 31)))
"""The first positions of the parts of a window with separate perplexities; each is as long as all before
it."""


@dataclass(frozen=True)
class Perplexity:
    """The loss of a model on a text."""

    perplexity: float
    """The exponential of the mean negative log-likelihood of a token."""
    bits_per_byte: float
    """The total, in bits for each UTF-8 byte of the text: comparable between tokenizers."""
    nll_nats: float
    """The total negative log-likelihood."""
    by_position: dict[int, float] = field(default_factory=dict)
    """The perplexity of the tokens from each of `STARTS` to before the next, counted within a window."""


def perplexity(
    model: LanguageModel, windows: EvaluationWindows, *, batch_size: int | None = None
) -> Perplexity:
    """Score the windows, reading each at once.

    Args:
        windows: `(N, T)` tokens; the figures are comparable only between models that score the same ones.
        batch_size: windows read together; without it, as many as keep the logits within 128 MiB.

    Raises:
        InputError: the windows do not fit the model's context or vocabulary, or score no token.
        StageError: a logit is not finite, or the perplexity is beyond what a double holds.
    """
    parts = window_predictions(model, windows, batch_size=batch_size)
    return windows_perplexity(score(parts, count=len(windows.input_ids)), windows)


def window_predictions(
    model: LanguageModel, windows: EvaluationWindows, *, batch_size: int | None = None
) -> Iterator[Predictions]:
    """Yield a model's predictions for every token of windows but the first; see `perplexity`."""
    _check_windows(model, windows)
    tokens = windows.input_ids.shape[1]
    rows = batch_size or max(1, LOGITS_BYTES // (4 * model.vocab_size * (tokens - 1)))
    for done, batch_BT in _batches(windows.input_ids, rows):
        # The last token is scored; its prediction is not.
        logits_BTV = model.logits(batch_BT[:, :-1])
        examples_B = np.arange(done - len(batch_BT), done)
        yield Predictions(
            logits_BTV.reshape(-1, model.vocab_size),
            batch_BT[:, 1:].reshape(-1),
            examples_B.repeat(tokens - 1),
        )


def windows_perplexity(scored: Scored, windows: EvaluationWindows) -> Perplexity:
    """Return a model's loss on windows, from its `window_predictions`.

    Raises:
        StageError: the perplexity is beyond what a double holds.
    """
    count, tokens = windows.input_ids.shape
    nats_T = np.zeros(tokens)
    for part_n in scored.parts:
        nats_T[1:] += part_n.reshape(-1, tokens - 1).sum(axis=0)
    means_T = nats_T / count
    starts = [start for start in STARTS if start < tokens]
    by_position = {
        start: exponential(float(means_T[start:end].mean())) for start, end in pairwise([*starts, tokens])
    }
    return replace(paid(scored.total, windows), by_position=by_position)


def response_predictions(model: LanguageModel, conversations: Responses) -> Iterator[Predictions]:
    """Yield a model's predictions for the answers of conversations, each given everything before it.

    Raises:
        InputError: the conversations do not fit the model's context or vocabulary.
    """
    _check_windows(model, conversations)
    rows = max(1, LOGITS_BYTES // (4 * model.vocab_size * conversations.input_ids.shape[1]))
    # Otherwise the longest conversation's length would choose the rotary factors for all.
    together = rows if model.renewed_after is None else 1
    for done, batch_BT in _batches(conversations.input_ids, rows):
        first = done - len(batch_BT)
        scored_BT = conversations.scored[first:done]
        parts = (slice(start, start + together) for start in range(0, len(batch_BT), together))
        logits = [_response_logits(model, batch_BT[part], scored_BT[part]) for part in parts]
        yield Predictions(np.concatenate(logits), batch_BT[scored_BT], first + np.nonzero(scored_BT)[0])


def _response_logits(model: LanguageModel, ids_BT: Tokens, scored_BT: NDArray[np.bool_]) -> Logits:
    """Return the logits of scored tokens, `(n, V)`.

    Everything after the last answer of a row is padding, which no earlier token sees.
    """
    longest = int(np.flatnonzero(scored_BT.any(axis=0))[-1]) + 1
    logits_BTV = model.logits(ids_BT[:, : longest - 1])
    found_nV: Logits = logits_BTV[scored_BT[:, 1:longest]]
    return found_nV


def exponential(nats: float) -> float:
    """Return the perplexity of a mean negative log-likelihood.

    Raises:
        StageError: it is beyond what a double holds.
    """
    try:
        return math.exp(nats)
    except OverflowError as error:
        raise StageError(
            f"a mean negative log-likelihood of {nats:.0f} nats gives no finite perplexity",
            remedy="Compress less in the stage before, or let it recover.",
        ) from error


def _batches(input_ids_NT: Tokens, rows: int) -> Iterator[tuple[int, Tokens]]:
    """Yield `(B, T)` slices, each with the number of windows up to its end."""
    for start in range(0, len(input_ids_NT), rows):
        batch_BT = input_ids_NT[start : start + rows]
        yield start + len(batch_BT), batch_BT


def _check_windows(model: LanguageModel, windows: EvaluationWindows) -> None:
    count, tokens = windows.input_ids.shape
    if windows.scored_tokens < 1:
        raise InputError(
            f"{count} windows of {tokens} tokens score no token", remedy="Give more held-out text."
        )
    # One token less than the window is read.
    if tokens - 1 > model.max_context:
        raise InputError(
            f"windows of {tokens} tokens are longer than the model's context of {model.max_context}",
            remedy=Text("Set ", recipe_key("evaluation", "block_size"), " to the model's context or less."),
        )
    highest = int(windows.input_ids.max())
    if highest >= model.vocab_size:
        raise InputError(
            f"token id {highest} of the held-out text is outside the vocabulary of {model.vocab_size}",
            remedy="Use the tokenizer the model was trained with.",
        )


def paid(nll_nats: float, windows: EvaluationWindows) -> Perplexity:
    """Return a model's loss on windows, from its total negative log-likelihood."""
    value = exponential(nll_nats / windows.scored_tokens)
    return Perplexity(value, bits_per_byte(nll_nats, windows.text_bytes), nll_nats)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Return a negative log-likelihood in bits per byte of its text."""
    return nats / (math.log(2) * text_bytes)
