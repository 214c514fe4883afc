"""Packing documents into fixed windows for training and calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, starmap
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.chat.rendering import rendered
from roots_compress.data.documents import Document
from roots_compress.data.encoding import Tokens, encode, first_characters, joined
from roots_compress.data.special_tokens import closing_ids, missing_ending, missing_opening, opening_ids
from roots_compress.data.streamed import StreamedDocuments
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows, following, or_shorter
from roots_compress.errors import InputError, Key, Text, recipe_key

BATCH_DOCUMENTS = 64
"""Number of documents between checks whether there are enough tokens."""
BLOCK_SIZE = Key("block_size")

Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]
Framing = Callable[[Ids, Flags, PreTrainedTokenizerFast], tuple[Ids, Flags]]


def pack(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack documents into windows of `block_size` tokens, both in an order drawn from `seed`.

    Each document opens with BOS where the tokenizer adds one, and ends with EOS where it has one. A window
    opens with the last token of the window before it, so every token but a document's first is scored exactly
    once, whichever windows a long document is cut across. The tokens after the last full window, fewer than a
    window, are dropped: padding would enter calibration statistics as if it were text.

    Args:
        limit: the most windows to return; no more documents are tokenised than these need.

    Raises:
        InputError: the documents fill less than one window.
    """
    rng = np.random.default_rng(seed)
    wanted = None if limit is None else limit * (block_size - 1) + 1
    ids, scored, lengths = tokenised(shuffled(documents, rng), tokenizer, wanted, _framed)
    require_window(len(ids), block_size)
    scored[np.cumsum(lengths) - lengths] = False  # A document's first token: nothing before it predicts it.
    document_of_token = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    chosen = rng.permutation((len(ids) - 1) // (block_size - 1))[:limit]
    token_NT = chosen[:, None] * (block_size - 1) + np.arange(block_size)
    input_ids_NT = ids[token_NT].astype(np.int64)
    document_NT = document_of_token[token_NT].astype(np.int64)
    return PackedWindows(
        input_ids_NT, following(input_ids_NT, scored[token_NT]), document_NT - document_NT[:, :1]
    )


def pack_texts(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedWindows:
    """Pack documents into windows as an encoder reads texts; targets are the tokens themselves.

    Every window has the tokenizer's special tokens around a text ([CLS] and [SEP]), and so has each document
    in it, once where their edges meet; these are not scored. If a document ends before its window, the window
    is filled with its first tokens, as a separate unscored text. Tokens after the last full window are
    dropped. Arguments are those of `pack`.

    Raises:
        InputError: the documents fill less than one window.
    """
    opening, closing = (np.array(ids(tokenizer), np.int32) for ids in (opening_ids, closing_ids))
    edges = len(opening), len(closing)

    def framed(ids: Ids, scored: Flags, _tokenizer: PreTrainedTokenizerFast) -> tuple[Ids, Flags]:
        return np.concatenate((opening, ids, closing)), np.pad(scored, edges)

    rng = np.random.default_rng(seed)
    room = block_size - sum(edges)
    wanted = None if limit is None else limit * block_size
    ids, scored, lengths = tokenised(shuffled(documents, rng), tokenizer, wanted, framed)
    require_window(len(ids), block_size)
    document_of_token = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    is_text = np.concatenate([np.pad(np.full(length - sum(edges), True), edges) for length in lengths])
    spans = _cut(is_text, room)
    chosen = [spans[index] for index in rng.permutation(len(spans))[:limit]]

    def window(start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        filled = room - (end - start)
        text_T = np.concatenate((opening, ids[start:end], closing)).astype(np.int64)
        scored_T = np.pad(scored[start:end], edges)
        document_T = np.pad(document_of_token[start:end] - document_of_token[start], edges, mode="edge")
        return (
            np.pad(text_T, (0, filled), mode="wrap"),
            np.pad(np.where(scored_T, text_T, IGNORED_LABEL), (0, filled), constant_values=IGNORED_LABEL),
            np.pad(document_T, (0, filled), constant_values=document_T[-1] + 1),
        )

    return PackedWindows(*(np.stack(each) for each in zip(*starmap(window, chosen), strict=True)))


def _cut(is_text: Flags, room: int) -> list[tuple[int, int]]:
    """Return the beginnings and ends of windows: at most `room` tokens apart, and both at tokens of text."""
    texts = np.flatnonzero(is_text)
    spans: list[tuple[int, int]] = []
    start = texts[0]
    while start + room <= len(is_text):
        following = np.searchsorted(texts, start + room)  # The first of the next window.
        spans.append((int(start), int(texts[following - 1]) + 1))
        if following == len(texts):
            break
        start = texts[following]
    return spans


def shuffled(documents: Sequence[Document], rng: np.random.Generator) -> Sequence[Document]:
    """Return the documents in random order; streamed ones from a random beginning."""
    if isinstance(documents, StreamedDocuments):
        return documents.beginning_at(int(rng.integers(len(documents))))
    return [documents[index] for index in rng.permutation(len(documents))]


def require_window(tokens: int, block_size: int) -> None:
    """Refuse a text with fewer tokens than a window.

    Raises:
        InputError: naming both figures.
    """
    if tokens < block_size:
        raise InputError(
            f"the text has {tokens} tokens, fewer than one window of {block_size}",
            where=recipe_key("data", "train"),
            remedy=Text("Give more text", or_shorter(BLOCK_SIZE, tokens), "."),
        )


def tokenised(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, wanted: int | None, framed: Framing
) -> tuple[Ids, Flags, NDArray[np.int64]]:
    """Return the documents' tokens one after another, which of them are scored, and each document's length.

    Stops after the batch of documents that brings the tokens to `wanted`. `framed` puts around a document's
    tokens what opens and closes it.
    """
    ids: list[Ids] = []
    scored: list[Flags] = []
    lengths: list[int] = []
    for start in range(0, len(documents), BATCH_DOCUMENTS):
        if wanted is not None and sum(lengths) >= wanted:
            break
        batch = list(rendered(documents[start : start + BATCH_DOCUMENTS], tokenizer))
        mixed = any(span.scored != document.spans[0].scored for document in batch for span in document.spans)
        pieces = encode((document.text for document in batch), tokenizer, places=mixed)
        for index, parts in groupby(pieces, key=attrgetter("number")):
            tokens = joined(parts)
            if len(tokens.ids):
                document_scored = _scored(batch[index], tokens, tokenizer)
                document_ids, document_scored = framed(tokens.ids, document_scored, tokenizer)
                ids.append(document_ids)
                scored.append(document_scored)
                lengths.append(len(document_ids))
    if not lengths:
        return np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(0, np.int64)
    return np.concatenate(ids), np.concatenate(scored), np.array(lengths, np.int64)


def _scored(document: Document, tokens: Tokens, tokenizer: PreTrainedTokenizerFast) -> Flags:
    """Return whether each token is scored: like the span of its first character."""
    flags = np.array([span.scored for span in document.spans])
    if flags.all() or not flags.any():
        return np.full(len(tokens.ids), flags[0])
    span_ends = np.cumsum([len(span.text) for span in document.spans])
    spans = np.searchsorted(span_ends, first_characters(tokens, tokenizer), side="right")
    scored: Flags = flags[np.minimum(spans, len(flags) - 1)]
    return scored


def _framed(ids: Ids, scored: Flags, tokenizer: PreTrainedTokenizerFast) -> tuple[Ids, Flags]:
    """Open a document with BOS and end it with EOS, unless its own text does (as a chat's markers may)."""
    before, after = missing_opening(ids, tokenizer), missing_ending(ids, tokenizer)
    framed = np.concatenate((np.array(before, np.int32), ids, np.array(after, np.int32)))
    return framed, np.concatenate((np.full(len(before), False), scored, np.full(len(after), True)))
