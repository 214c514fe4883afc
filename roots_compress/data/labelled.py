"""Texts with labels or scores as model inputs: single for evaluation, packed for training and calibration.

Shape legend: N texts or windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.packing import BATCH_DOCUMENTS, BLOCK_SIZE
from roots_compress.data.texts import (
    EVALUATED_LENGTH,
    EvaluationTexts,
    Pair,
    as_texts,
    evaluated,
    framed_pairs,
    framed_texts,
)
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import Key

Framing = Callable[..., list[Pair]]
"""`framed_pairs`, or a function with its arguments."""


@dataclass(frozen=True)
class LabelledTexts(EvaluationTexts):
    """Texts, each with its right label."""

    labels: NDArray[np.int64] = field(kw_only=True)
    """`(N,)`: numbers of labels."""


@dataclass(frozen=True)
class ScoredTexts(EvaluationTexts):
    """Texts or pairs, each with its right score."""

    scores: NDArray[np.float64] = field(kw_only=True)
    """`(N,)`: NaN if unknown."""


def labelled_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, tokens: int
) -> LabelledTexts:
    """Return evenly spaced labelled texts with the tokenizer's special tokens.

    `evaluated` chooses them.

    Args:
        longest: most tokens of a text; the rest of a longer one is left out.
        tokens: of all texts together, at `BYTES_PER_TOKEN`; at least one text is returned.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """
    chosen, texts = _read(documents, tokenizer, longest, tokens, _framed)
    return LabelledTexts(**vars(texts), labels=np.array([each.label for each in chosen], dtype=np.int64))


def scored_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, tokens: int
) -> ScoredTexts:
    """Return texts or pairs, joined by the tokenizer, with their scores; see `labelled_texts`."""
    chosen, texts = _read(documents, tokenizer, longest, tokens, framed_pairs)
    scores = [np.nan if each.score is None else each.score for each in chosen]
    return ScoredTexts(**vars(texts), scores=np.array(scores, dtype=np.float64))


def _read(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    longest: int,
    tokens: int,
    framing: Framing,
) -> tuple[list[Document], EvaluationTexts]:
    chosen = evaluated(documents, longest, tokens)
    ids, types = zip(*framing(chosen, tokenizer, longest, key=EVALUATED_LENGTH), strict=True)
    return chosen, as_texts(ids, longest, [each.text for each in chosen], documents, tokenizer, types)


def pack_labelled(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack labelled texts as `pack_rows` does. A text's label is the target of its first position.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """

    def framed(batch: Sequence[Document]) -> list[Row]:
        labels = [IGNORED_LABEL if each.label is None else each.label for each in batch]
        return _rows(batch, _framed(batch, tokenizer, block_size, key=BLOCK_SIZE), labels)

    return pack_rows(documents, framed, block_size, seed=seed, limit=limit)


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
        return _rows(batch, framed_pairs(batch, tokenizer, block_size, key=BLOCK_SIZE), [0] * len(batch))

    return pack_rows(documents, framed, block_size, seed=seed, limit=limit)


def _rows(documents: Sequence[Document], read: Sequence[Pair], targets: Sequence[int]) -> list[Row]:
    """Return texts for packing: each has a target at its first position only."""
    return [
        Row(ids, [target, *[IGNORED_LABEL] * (len(ids) - 1)], types, document.score)
        for document, (ids, types), target in zip(documents, read, targets, strict=True)
    ]


def _framed(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, longest: int, *, key: Key
) -> list[Pair]:
    """Return the tokens of texts or pairs with the tokenizer's special tokens."""
    if any(len(each.spans) > 1 for each in documents):
        return framed_pairs(documents, tokenizer, longest, key=key)
    texts = framed_texts([each.text for each in documents], tokenizer, longest, key=key)
    return [Pair(ids, [0] * len(ids)) for ids in texts]


class Row(NamedTuple):
    """A text as a model's input."""

    ids: list[int]
    targets: list[int]
    """The target at each position; -100 where there is none."""
    types: list[int] | None = None
    """1 in the second text of a pair; None if all are 0."""
    score: float | None = None
    """The right number for the text, if known."""


def pack_rows(
    documents: Sequence[Document],
    framed: Callable[[Sequence[Document]], list[Row]],
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack texts into windows of `block_size` tokens, in an order drawn from `seed`.

    Each text is whole. The rest of a window is the beginning of another text, without targets: padding would
    enter calibration statistics as if it were text.

    Args:
        framed: reads some of them, each in at most `block_size` tokens.
        limit: the most windows to return; no more texts are tokenised than these need.
    """
    ids: list[int] = []
    targets: list[int] = []
    types: list[int] = []
    starts: list[int] = []
    scores: list[float] = []

    def put(row: Row, room: int | None = None) -> None:
        starts.append(len(ids))
        ids.extend(row.ids[:room])
        types.extend((row.types or [0] * len(row.ids))[:room])
        targets.extend(row.targets if room is None else [IGNORED_LABEL] * (len(ids) - len(targets)))
        known = row.score if row.score is not None and room is None else np.nan
        scores.extend((known, *[np.nan] * (len(ids) - len(scores) - 1)))

    rows: list[Row] = []
    order = np.random.default_rng(seed).permutation(len(documents))
    for start in range(0, len(order), BATCH_DOCUMENTS):
        if limit is not None and len(ids) >= limit * block_size:
            break
        rows = framed([documents[index] for index in order[start : start + BATCH_DOCUMENTS]])
        for row in rows:
            if 0 < (room := -len(ids) % block_size) < len(row.ids):
                put(row, room)
            put(row)
    for row in cycle(rows):
        if not (room := -len(ids) % block_size):
            break
        put(row, room)

    begins = np.zeros(len(ids), dtype=np.int64)
    begins[starts] = 1
    input_ids_NT, targets_NT, types_NT, begins_NT = (
        np.asarray(each, dtype=np.int64).reshape(-1, block_size)[:limit]
        for each in (ids, targets, types, begins)
    )
    scores_NT = np.asarray(scores, dtype=np.float32).reshape(-1, block_size)[:limit]
    return PackedWindows(
        input_ids_NT,
        targets_NT,
        begins_NT.cumsum(axis=1) - 1,
        token_types=types_NT if types_NT.any() else None,
        scores=None if np.isnan(scores_NT).all() else scores_NT,
    )
