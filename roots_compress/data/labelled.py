"""Labelled texts as models read them: one by one to be judged, packed into windows to train and calibrate.

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
    as_texts,
    evaluated,
    framed_texts,
)
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows


@dataclass(frozen=True)
class LabelledTexts(EvaluationTexts):
    """Texts, each with the label that it is to be given."""

    labels: NDArray[np.int64] = field(kw_only=True)
    """`(N,)`: numbers of labels."""


def labelled_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, tokens: int
) -> LabelledTexts:
    """Return labelled texts at even distances, opened and closed as the tokenizer does it.

    `evaluated` chooses them.

    Args:
        documents: each a text with a label.
        tokenizer: of the model.
        longest: most tokens of a text; the rest of a longer one is left out.
        tokens: of all texts together, at `BYTES_PER_TOKEN`; at least one text is returned.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """
    chosen = evaluated(documents, longest, tokens)
    texts = [each.text for each in chosen]
    rows = framed_texts(texts, tokenizer, longest, key=EVALUATED_LENGTH)
    return LabelledTexts(
        **vars(as_texts(rows, longest, texts, documents, tokenizer)),
        labels=np.array([each.label for each in chosen], dtype=np.int64),
    )


def pack_labelled(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack labelled texts as `pack_rows` does. A text's label is the target of its first position.

    Args:
        documents: each a text with a label.
        tokenizer: of the model.
        block_size: tokens in a window.
        seed: decides the order.
        limit: the most windows to return.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """

    def framed(batch: Sequence[Document]) -> list[Row]:
        rows = framed_texts([each.text for each in batch], tokenizer, block_size, key=BLOCK_SIZE)
        labels = [IGNORED_LABEL if each.label is None else each.label for each in batch]
        return [
            Row(ids, [label, *[IGNORED_LABEL] * (len(ids) - 1)])
            for ids, label in zip(rows, labels, strict=True)
        ]

    return pack_rows(documents, framed, block_size, seed=seed, limit=limit)


class Row(NamedTuple):
    """A text as a model reads it."""

    ids: list[int]
    targets: list[int]
    """What is to be said at each position; -100 where nothing is."""
    types: list[int] | None = None
    """1 in the second text of a pair; None where all are 0."""


def pack_rows(
    documents: Sequence[Document],
    framed: Callable[[Sequence[Document]], list[Row]],
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack texts into windows of `block_size` tokens, in an order drawn from `seed`.

    Each text is whole. What a window has room for after its last whole text is the beginning of another,
    without targets: padding would enter calibration statistics as if it were text.

    Args:
        documents: the texts.
        framed: reads some of them, each in at most `block_size` tokens.
        block_size: tokens in a window.
        seed: decides the order.
        limit: the most windows to return; no more texts are tokenised than these need.
    """
    ids: list[int] = []
    targets: list[int] = []
    types: list[int] = []
    starts: list[int] = []

    def put(row: Row, room: int | None = None) -> None:
        starts.append(len(ids))
        ids.extend(row.ids[:room])
        types.extend((row.types or [0] * len(row.ids))[:room])
        targets.extend(row.targets if room is None else [IGNORED_LABEL] * (len(ids) - len(targets)))

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
    return PackedWindows(
        input_ids_NT,
        targets_NT,
        begins_NT.cumsum(axis=1) - 1,
        token_types=types_NT if types_NT.any() else None,
    )
