"""Held-out windows for perplexity: the same for every stage and engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.chat.rendering import rendered
from roots_compress.data.documents import Document
from roots_compress.data.encoding import bytes_of_tokens, encode, marks_beginnings
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.special_tokens import opening_id
from roots_compress.data.texts import BYTES_PER_TOKEN, evenly
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import EvaluationWindows, or_shorter
from roots_compress.errors import InputError, Key, Text, recipe_key

DOCUMENT_SEPARATOR = "\n\n"
"""Joins the documents: a blank line is text in every tokenizer, so that its bytes can be counted."""
MEASURED_DOCUMENTS = 64
"""Of a training text, by which the size of the others is told."""


def evaluation_windows(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    *,
    block_size: int,
    limit: int,
    part: Literal["eval", "train"] = "eval",
) -> EvaluationWindows:
    """Cut text, held out or for training, into windows of `block_size` tokens.

    The documents are joined by blank lines into one stream of tokens, cut every `block_size - 1` tokens.
    Where the tokenizer adds BOS to a text, each piece is opened with it, or with the one that the text spells
    there; else with the token before the piece. What opens a piece is not scored there. No token is scored
    twice. Prompts of instruction data are scored too.

    If the text has more windows than `limit`, that many are taken evenly spaced over the whole text, so that
    the figure does not depend on the first documents only. The same text, tokenizer and sizes give the same
    windows. The last tokens, fewer than a window, are left out. Of training text, which may be large, only
    documents at even distances are read, enough for so many windows.

    Raises:
        InputError: the documents fill less than one window.
    """
    bos = opening_id(tokenizer)
    stride = block_size - 1
    count = _enough(documents, limit * block_size) if part == "train" else len(documents)
    while True:
        read = evenly(documents, count) if count < len(documents) else documents
        ids, token_bytes = _token_stream(read, tokenizer)
        starts = _starts(ids, bos, stride)
        available = len(starts)
        if available >= limit or count >= len(documents):
            break
        count *= 2
    if available < 1:
        name, key = "training", Key("calibration", "block_size")
        if part == "eval":
            name, key = "held-out", recipe_key("evaluation", "block_size")
        # A window opens with a token of the text's own, or with BOS beside them all.
        tokens = len(ids) + (bos is not None and ids[:1].tolist() != [bos])
        raise InputError(
            f"the {name} text has {len(ids)} tokens, fewer than one window of {block_size}",
            where=recipe_key("data", part),
            remedy=Text("Give more text", or_shorter(key, tokens), "."),
        )
    count = min(limit, available)
    chosen = np.arange(count) * available // count
    scored_NT = starts[chosen][:, None] + np.arange(stride)
    first_N1 = ids[scored_NT[:, :1] - 1] if bos is None else np.full((count, 1), bos)
    return EvaluationWindows(
        input_ids=np.concatenate([first_N1, ids[scored_NT]], axis=1).astype(np.int64),
        bos=bos is not None,
        text_bytes=int(token_bytes[scored_NT].sum(dtype=np.int64)),
        text_sha256=text_sha256(read),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
    )


def _enough(documents: Sequence[Document], tokens: int) -> int:
    """Return how many documents surely contain this many tokens, from the size of some of them."""
    seen = evenly(documents, MEASURED_DOCUMENTS)
    size = sum(len(document.text.encode()) for document in seen) / max(len(seen), 1)
    return max(1, math.ceil(2 * tokens * BYTES_PER_TOKEN / max(size, 1)))


def _starts(ids: NDArray[np.int32], bos: int | None, stride: int) -> NDArray[np.int64]:
    """Return where the scored tokens of each window begin."""
    starts: list[int] = []
    start = 1 if bos is None else 0
    while True:
        start += start < len(ids) and int(ids[start]) == bos
        if start + stride > len(ids):
            return np.array(starts, np.int64)
        starts.append(start)
        start += stride


def _token_stream(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the joined documents' tokens, and the UTF-8 bytes that each token stands for.

    Each document is tokenised with the blank line after it. A tokenizer that marks the beginning of a text,
    as with a space, gets all of them as the one text that they are: only the first begins it.
    """
    documents = list(rendered(documents, tokenizer))
    texts = [document.text + DOCUMENT_SEPARATOR for document in documents[:-1]]
    texts += [document.text for document in documents[-1:]]
    if len(texts) > 1 and marks_beginnings(tokenizer):
        texts = ["".join(texts)]
    ids = [np.zeros(0, np.int32)]
    counts = [np.zeros(0, np.int32)]
    uncounted = 0
    for piece in encode(texts, tokenizer):
        text = texts[piece.number]
        token_bytes, uncounted = bytes_of_tokens(text, piece, uncounted)
        if piece.end == len(text) and len(token_bytes):  # What follows a text's last token counts with it.
            token_bytes[-1] += uncounted
            uncounted = 0
        ids.append(piece.tokens.ids)
        counts.append(token_bytes.astype(np.int32))
    return np.concatenate(ids), np.concatenate(counts)
