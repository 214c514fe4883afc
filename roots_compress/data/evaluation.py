"""Held-out windows for perplexity: the same for every stage and engine that is measured on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.special_tokens import opening_id
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import EvaluationWindows, or_shorter
from roots_compress.errors import InputError, Key

DOCUMENT_SEPARATOR = "\n\n"
"""Joins the documents: a blank line is text in every tokenizer, so that its bytes can be counted."""

Ids = NDArray[np.int64]


def evaluation_windows(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, block_size: int, limit: int
) -> EvaluationWindows:
    """Cut held-out text into windows of `block_size` tokens.

    The documents are joined by blank lines into one stream of tokens, cut every `block_size - 1` tokens.
    Where the tokenizer adds BOS to a text, each piece is opened with it; else with the token before the
    piece, which is not scored there. No token is scored twice. Prompts of instruction data are scored too.

    Where the text holds more windows than `limit`, as many are taken at even distances over the whole text,
    so that not the first documents alone decide the figure. The same text, tokenizer and sizes give the same
    windows. The last tokens, fewer than a window, are left out.

    Raises:
        InputError: the documents fill less than one window.
    """
    ids, token_bytes = _token_stream(documents, tokenizer)
    bos = opening_id(tokenizer)
    if (
        bos is not None and len(ids) and ids[0] == bos
    ):  # The text spells it; each window opens with it anyway.
        ids, token_bytes = ids[1:], token_bytes[1:]
    opening = 1 if bos is None else 0  # Tokens of the stream that no window scores.
    stride = block_size - 1
    available = (len(ids) - opening) // stride
    if available < 1:
        raise InputError(
            f"the held-out text has {len(ids)} tokens, fewer than one window of {block_size}",
            where=Key("data.eval"),
            remedy=f"Give more text{or_shorter('evaluation.block_size', len(ids) + 1 - opening)}.",
        )
    count = min(limit, available)
    chosen = np.arange(count) * available // count
    scored_NT = opening + chosen[:, None] * stride + np.arange(stride)
    first_N1 = ids[scored_NT[:, :1] - 1] if bos is None else np.full((count, 1), bos, np.int64)
    return EvaluationWindows(
        input_ids=np.concatenate([first_N1, ids[scored_NT]], axis=1),
        bos=bos is not None,
        text_bytes=int(token_bytes[scored_NT].sum()),
        text_sha256=text_sha256(documents),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
    )


def _token_stream(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> tuple[Ids, Ids]:
    """Return the joined documents' tokens, and the UTF-8 bytes that each token stands for."""
    texts = [document.text + DOCUMENT_SEPARATOR for document in documents[:-1]]
    texts += [document.text for document in documents[-1:]]
    if not texts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    ids = [np.array(text_ids, np.int64) for text_ids in encoded["input_ids"]]
    counts = [_bytes_of_tokens(*pair) for pair in zip(texts, encoded["offset_mapping"], strict=True)]
    return np.concatenate(ids), np.concatenate(counts)


def _bytes_of_tokens(text: str, offsets: list[tuple[int, int]]) -> Ids:
    """Return the UTF-8 bytes of each token, which add up to those of the text.

    A token's bytes reach from the end of what was counted before it to its own end. So spaces that a
    tokenizer trims from its offsets count with the token after them, and a character spelt by several tokens
    counts once, with the first of them. What follows the last token counts with it.
    """
    if not offsets:
        return np.zeros(0, np.int64)
    codepoints = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (codepoints >= 0x80) + (codepoints >= 0x800) + (codepoints >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
    ends = np.maximum.accumulate(np.array([end for _, end in offsets], np.int64))
    ends[-1] = len(text)
    counts: Ids = np.diff(bytes_before[ends], prepend=0)
    return counts
