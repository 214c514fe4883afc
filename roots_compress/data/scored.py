"""Texts and pairs of texts to be scored: one by one to be judged, packed into windows to train and calibrate.

Shape legend: N texts or windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.labelled import Row, pack_rows
from roots_compress.data.packing import BLOCK_SIZE
from roots_compress.data.texts import EVALUATED_LENGTH, EvaluationTexts, as_texts, evaluated
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows, padded
from roots_compress.errors import InputError, Key

LEAST = 2
"""Tokens of text that a pair must have room for: one of each."""


@dataclass(frozen=True)
class ScoredTexts(EvaluationTexts):
    """Texts or pairs, each with the score that is right for it."""

    scores: NDArray[np.float64] = field(kw_only=True)
    """`(N,)`: NaN where none is known."""


class Pair(NamedTuple):
    """The tokens of a text or of a pair, and which of the two texts each is of."""

    ids: list[int]
    types: list[int]


def framed_pairs(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, longest: int, *, key: Key
) -> list[Pair]:
    """Return the tokens of texts or pairs as the tokenizer joins them, the longer text cut until they fit.

    Args:
        documents: each one text or two.
        tokenizer: of the model.
        longest: most tokens of a pair.
        key: of the setting that says so, for the message.

    Raises:
        InputError: there is no room for text between what the tokenizer puts around it.
    """
    if longest < tokenizer.num_special_tokens_to_add(pair=True) + LEAST:
        raise InputError(
            f"{longest} tokens have no room for a pair between what the tokenizer puts around it",
            where=key,
            remedy="Raise it.",
        )
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(longest, direction=tokenizer.truncation_side)
    texts = [tuple(span.text for span in document.spans) for document in documents]
    encodings = backend.encode_batch([each if len(each) > 1 else each[0] for each in texts])
    backend.no_truncation()
    return [Pair(each.ids, each.type_ids) for each in encodings]


def scored_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, tokens: int
) -> ScoredTexts:
    """Return texts or pairs at even distances, chosen by `evaluated`, and their scores.

    Args:
        documents: each one text or two.
        tokenizer: of the model.
        longest: most tokens of a pair.
        tokens: of all together, at `BYTES_PER_TOKEN`; at least one is returned.

    Raises:
        InputError: there is no room for text.
    """
    chosen = evaluated(documents, longest, tokens)
    pairs = framed_pairs(chosen, tokenizer, longest, key=EVALUATED_LENGTH)
    rows = [each.ids for each in pairs]
    texts = as_texts(rows, longest, [each.text for each in chosen], documents, tokenizer)
    types_NT = padded([each.types for each in pairs], 0, longest)
    scores = [np.nan if each.score is None else each.score for each in chosen]
    return ScoredTexts(
        **{**vars(texts), "token_types": types_NT if types_NT.any() else None},
        scores=np.array(scores, dtype=np.float64),
    )


def pack_scored(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack texts or pairs as `pack_rows` does; a model and its teacher score each at its first position.

    Args:
        documents: each one text or two.
        tokenizer: of the model.
        block_size: tokens in a window.
        seed: decides the order.
        limit: the most windows to return.

    Raises:
        InputError: there is no room for text.
    """

    def framed(batch: Sequence[Document]) -> list[Row]:
        return [
            Row(ids, [0, *[IGNORED_LABEL] * (len(ids) - 1)], types)
            for ids, types in framed_pairs(batch, tokenizer, block_size, key=BLOCK_SIZE)
        ]

    return pack_rows(documents, framed, block_size, seed=seed, limit=limit)
