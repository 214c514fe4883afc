"""Labelled texts as models read them: one by one to be judged, packed into windows to train and calibrate.

Shape legend: N texts or windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.packing import BATCH_DOCUMENTS, BLOCK_SIZE
from roots_compress.data.texts import (
    BYTES_PER_TOKEN,
    EVALUATED_LENGTH,
    EvaluationTexts,
    evenly,
    framed_texts,
    padded,
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

    Which ones they are does not depend on the tokenizer, so that models with different ones are compared on
    the same texts.

    Args:
        documents: each a text with a label.
        tokenizer: of the model.
        longest: most tokens of a text; the rest of a longer one is left out.
        tokens: of all texts together, at `BYTES_PER_TOKEN`; at least one text is returned.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """
    size = sum(min(len(each.text.encode()), longest * BYTES_PER_TOKEN) for each in documents)
    chosen = evenly(documents, max(1, tokens * BYTES_PER_TOKEN * len(documents) // size))
    texts = [each.text for each in chosen]
    rows = framed_texts(texts, tokenizer, longest, key=EVALUATED_LENGTH)
    return LabelledTexts(
        **vars(padded(rows, longest, texts, documents, tokenizer)),
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
    """Pack labelled texts into windows of `block_size` tokens, in an order drawn from `seed`.

    Each text is whole, unless it is longer than a window: then its rest is left out. Its label is the target
    of its first position. What a window has room for after its last whole text is the beginning of another,
    without a label: padding would enter calibration statistics as if it were text.

    Args:
        documents: each a text with a label.
        tokenizer: of the model.
        block_size: tokens in a window.
        seed: decides the order.
        limit: the most windows to return; no more texts are tokenised than these need.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """
    ids: list[int] = []
    starts: list[int] = []
    labels: list[int] = []

    def put(row: list[int], label: int) -> None:
        starts.append(len(ids))
        labels.append(label)
        ids.extend(row)

    rows: list[list[int]] = []
    order = np.random.default_rng(seed).permutation(len(documents))
    for start in range(0, len(order), BATCH_DOCUMENTS):
        if limit is not None and len(ids) >= limit * block_size:
            break
        batch = [documents[index] for index in order[start : start + BATCH_DOCUMENTS]]
        rows = framed_texts([each.text for each in batch], tokenizer, block_size, key=BLOCK_SIZE)
        for row, document in zip(rows, batch, strict=True):
            if 0 < (room := -len(ids) % block_size) < len(row):
                put(row[:room], IGNORED_LABEL)
            put(row, IGNORED_LABEL if document.label is None else document.label)
    for row in cycle(rows):
        if not (room := -len(ids) % block_size):
            break
        put(row[:room], IGNORED_LABEL)

    input_ids = np.array(ids, dtype=np.int64)
    targets, begins = np.full_like(input_ids, IGNORED_LABEL), np.zeros_like(input_ids)
    targets[starts], begins[starts] = labels, 1
    input_ids_NT, targets_NT, begins_NT = (
        each.reshape(-1, block_size)[:limit] for each in (input_ids, targets, begins)
    )
    return PackedWindows(input_ids_NT, targets_NT, begins_NT.cumsum(axis=1) - 1)
