"""Texts and pairs of texts to be scored: one by one to be judged, packed into windows to train and calibrate.

Shape legend: N texts or windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.labelled import Row, pack_rows
from roots_compress.data.packing import BLOCK_SIZE
from roots_compress.data.texts import (
    EVALUATED_LENGTH,
    EvaluationTexts,
    as_texts,
    evaluated,
    framed_pairs,
)
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows


@dataclass(frozen=True)
class ScoredTexts(EvaluationTexts):
    """Texts or pairs, each with the score that is right for it."""

    scores: NDArray[np.float64] = field(kw_only=True)
    """`(N,)`: NaN where none is known."""


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
    ids, types = zip(*pairs, strict=True)
    scores = [np.nan if each.score is None else each.score for each in chosen]
    return ScoredTexts(
        **vars(as_texts(ids, longest, [each.text for each in chosen], documents, tokenizer, types)),
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

    Raises:
        InputError: there is no room for text.
    """

    def framed(batch: Sequence[Document]) -> list[Row]:
        return [
            Row(ids, [0, *[IGNORED_LABEL] * (len(ids) - 1)], types, document.score)
            for document, (ids, types) in zip(
                batch, framed_pairs(batch, tokenizer, block_size, key=BLOCK_SIZE), strict=True
            )
        ]

    return pack_rows(documents, framed, block_size, seed=seed, limit=limit)
