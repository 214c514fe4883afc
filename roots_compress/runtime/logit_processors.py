"""What is done to the logits of a next token before one is chosen: penalties, biases, and tokens ruled out.

The settings, their meaning and their order are those of transformers' `generate`, so that the same
generation_config.json gives the same text.

Shape legend: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from roots_compress.checkpoints.logit_settings import LogitSettings
from roots_compress.runtime.protocol import Logits

Ids = NDArray[np.int64]
Biases = Iterable[tuple[Sequence[int], float]]
UNCHANGED = LogitSettings()
"""Logits as the model gives them."""


def adjusted_rows(
    logits_BV: Logits,
    rows: Sequence[Sequence[int]],
    settings: LogitSettings,
    *,
    prompt_lengths: Sequence[int],
    max_new_tokens: int,
    stop_tokens: Collection[int],
) -> Logits:
    """Return the logits of each row's next token as the settings change them; see `adjusted`."""
    if settings == UNCHANGED:
        return logits_BV
    return np.stack(
        [
            adjusted(
                logits_V,
                row,
                settings,
                prompt_length=length,
                max_length=length + max_new_tokens,
                stop_tokens=stop_tokens,
            )
            for logits_V, row, length in zip(logits_BV, rows, prompt_lengths, strict=True)
        ]
    )


def adjusted(
    logits_V: Logits,
    tokens: Sequence[int],
    settings: LogitSettings,
    *,
    prompt_length: int,
    max_length: int,
    stop_tokens: Collection[int],
) -> Logits:
    """Return the logits of a row's next token as the settings change them.

    `tokens` is the row so far: its prompt and what was added to it. In the end it has `max_length` at most.
    """
    adjusted_V, ids = logits_V.copy(), np.asarray(tokens, dtype=np.int64)
    length, ends = len(tokens), list(stop_tokens)
    if settings.sequence_bias is not None:
        # Of a sequence that is named twice the last bias holds.
        _bias(adjusted_V, ids, {tuple(each): bias for each, bias in settings.sequence_bias}.items())
    if settings.repetition_penalty is not None:
        _penalize(adjusted_V, ids, settings.repetition_penalty)
    if settings.no_repeat_ngram_size:
        adjusted_V[repeating(ids, settings.no_repeat_ngram_size)] = -np.inf
    if settings.bad_words_ids is not None:
        # An end by itself stays possible, or no text would end.
        words = [word for word in settings.bad_words_ids if not (len(word) == 1 and word[0] in ends)]
        _bias(adjusted_V, ids, [(word, -np.inf) for word in words])
    if length < max(settings.min_length or 0, prompt_length + (settings.min_new_tokens or 0)):
        adjusted_V[ends] = -np.inf
    if settings.forced_bos_token_id is not None and length == 1:
        _force(adjusted_V, [settings.forced_bos_token_id])
    if settings.forced_eos_token_id is not None and length == max_length - 1:
        forced = settings.forced_eos_token_id
        _force(adjusted_V, forced if isinstance(forced, list) else [forced])
    if settings.exponential_decay_length_penalty is not None and ends:
        start, factor = settings.exponential_decay_length_penalty
        if (beyond := length - prompt_length - start) > 0:
            _favour(adjusted_V, ends, factor, beyond)
    if settings.suppress_tokens is not None:
        _suppress(adjusted_V, settings.suppress_tokens)
    # A prompt of one token is BOS alone, after which a forced token is no choice either.
    begin = prompt_length + (prompt_length == 1 and settings.forced_bos_token_id is not None)
    if settings.begin_suppress_tokens is not None and length == begin:
        _suppress(adjusted_V, settings.begin_suppress_tokens)
    return log_softmax(adjusted_V) if settings.renormalize_logits else adjusted_V


def log_softmax(logits: Logits) -> Logits:
    """Return the logarithms of the probabilities that logits stand for, over their last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Logits = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def repeating(ids: Ids, size: int) -> Ids:
    """Return the tokens that would repeat a sequence of `size` tokens (Paulus et al. 2017)."""
    if len(ids) < size:
        return ids[:0]
    sequences_NS = sliding_window_view(ids, size)
    begun_N = (sequences_NS[:, :-1] == ids[len(ids) - size + 1 :]).all(axis=1)
    followers: Ids = sequences_NS[begun_N, -1]
    return followers


def _penalize(logits_V: Logits, ids: Ids, penalty: float) -> None:
    """Make each token that the row holds less likely, in place (Keskar et al. 2019, arXiv:1909.05858)."""
    held = logits_V[ids]
    logits_V[ids] = np.where(held < 0, held * penalty, held / penalty)


def _bias(logits_V: Logits, ids: Ids, biases: Biases) -> None:
    """Add a bias to the last token of each sequence whose other tokens end the row, in place."""
    for sequence, bias in biases:
        before = len(sequence) - 1
        if before <= len(ids) and ids[len(ids) - before :].tolist() == list(sequence[:-1]):
            logits_V[sequence[-1]] += bias


def _favour(logits_V: Logits, ends: Sequence[int], factor: float, beyond: int) -> None:
    """Add to the ends' logits their sizes times (factor^beyond - 1), in place; ends ruled out stay so.

    What grows past the largest number of the logits' type stays there, so that no logit becomes NaN.
    """
    most = float(np.finfo(logits_V.dtype).max)
    possible = [end for end in ends if np.isfinite(logits_V[end])]
    with np.errstate(over="ignore"):
        growth = float(np.clip(np.float64(factor) ** beyond - 1, -most, most))
        grown = logits_V[possible] + np.abs(logits_V[possible]) * growth
    logits_V[possible] = np.clip(grown, -most, most)


def _force(logits_V: Logits, tokens: Sequence[int]) -> None:
    logits_V[:] = -np.inf
    logits_V[tokens] = 0


def _suppress(logits_V: Logits, tokens: Iterable[int]) -> None:
    logits_V[[token for token in tokens if 0 <= token < len(logits_V)]] = -np.inf
