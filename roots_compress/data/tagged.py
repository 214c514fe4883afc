"""Texts whose words have labels, as models read them: a word's label is that of its first token.

Shape legend: N texts or windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.encoding import Tokens, encode
from roots_compress.data.labelled import Row, pack_rows
from roots_compress.data.packing import BLOCK_SIZE
from roots_compress.data.texts import (
    EVALUATED_LENGTH,
    EvaluationTexts,
    as_texts,
    evaluated,
    frame_of,
    kept_part,
)
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows, padded
from roots_compress.errors import InputError, Key, recipe_key


@dataclass(frozen=True)
class TaggedTexts(EvaluationTexts):
    """Texts, and the labels that their words are to be given."""

    labels: NDArray[np.int64] = field(kw_only=True)
    """`(N, T)`: at the first token of each word the number of its label; -100 at other positions."""
    names: tuple[str, ...] = field(kw_only=True)
    """Of the labels, by their numbers."""


def tagged_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, tokens: int
) -> TaggedTexts:
    """Return texts at even distances, opened and closed as the tokenizer does it.

    `evaluated` chooses them.

    Args:
        longest: most tokens of a text; the words of its rest are not judged.
        tokens: of all texts together, at `BYTES_PER_TOKEN`; at least one text is returned.

    Raises:
        InputError: there is no room for a word between what opens and closes a text.
    """
    chosen = evaluated(documents, longest, tokens)
    rows = framed_words(chosen, tokenizer, longest, key=EVALUATED_LENGTH)
    texts = as_texts([row.ids for row in rows], longest, [each.text for each in chosen], documents, tokenizer)
    labels = padded([row.targets for row in rows], IGNORED_LABEL, longest)
    if (labels == IGNORED_LABEL).all():
        raise InputError(
            "no word of the held-out text is read",
            where=recipe_key("data", "eval"),
            remedy="Give other text, or the model's own tokenizer.",
        )
    tags = documents[0].tags
    assert tags is not None
    return TaggedTexts(**vars(texts), labels=labels, names=tags.names)


def pack_tagged(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack texts whose words have labels as `pack_rows` does.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """
    framed = partial(framed_words, tokenizer=tokenizer, longest=block_size, key=BLOCK_SIZE)
    return pack_rows(documents, framed, block_size, seed=seed, limit=limit)


def framed_words(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, longest: int, *, key: Key
) -> list[Row]:
    """Return the tokens of texts as `framed_texts` does, the label of each word at its first token."""
    opening, closing, room = frame_of(tokenizer, longest, key=key)
    kept = kept_part(tokenizer, room)
    read: list[list[Tokens]] = [[] for _ in documents]
    for piece in encode([each.text for each in documents], tokenizer):
        read[piece.number].append(piece.tokens)
    rows = []
    for document, pieces in zip(documents, read, strict=True):
        tokens = Tokens(*(np.concatenate(each)[kept] for each in zip(*pieces, strict=True)))
        targets = [IGNORED_LABEL] * (len(opening) + len(tokens.ids) + len(closing))
        for place, number in zip(*_first_tokens(document, tokens), strict=True):
            targets[len(opening) + place] = number
        rows.append(Row([*opening, *tokens.ids.tolist(), *closing], targets))
    return rows


def _first_tokens(document: Document, tokens: Tokens) -> tuple[list[int], list[int]]:
    """Return the first token of each word that has one of its own, and the word's label.

    The space before a word belongs to it, as in transformers' `word_ids`, also where it is its own token.
    """
    assert document.tags is not None
    ends_S = np.cumsum([len(span.text) for span in document.spans])
    words_S = np.array([span.scored for span in document.spans])
    ends_W = ends_S[words_S]
    begins_W = ends_W - np.array([len(span.text) for span in document.spans])[words_S]
    first_W = np.searchsorted(tokens.ends, begins_W - 1, side="right")
    own_W = first_W < len(tokens.ids)
    own_W[own_W] &= tokens.starts[first_W[own_W]] < ends_W[own_W]
    # A token that two words share is the first one's.
    own_W[1:] &= first_W[1:] != first_W[:-1]
    return first_W[own_W].tolist(), np.array(document.tags.numbers)[own_W].tolist()
