"""Windows of two parts of text, of which the second follows the first in half of the windows (BERT).

Shape legend: N windows of T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.masking import MaskedWindows, hidden_in
from roots_compress.data.packing import BLOCK_SIZE, Flags, Ids, require_window, shuffled, tokenised
from roots_compress.data.special_tokens import closing_ids, opening_ids, require_mask
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import InputError, Key, recipe_key

SHORTEST = 2
"""Tokens of the shortest part."""
EDGES = 0.25, 0.75
"""Between these shares of a window the second part begins."""


@dataclass(frozen=True)
class SentencePairs(MaskedWindows):
    """Windows that hide tokens, and ask whether their second part follows the first."""

    token_types: NDArray[np.int64]
    """`(N, T)`: 0 in the first part, 1 in the second."""
    follows: NDArray[np.int64]
    """`(N, 1)`: 1 where the second part follows the first in its document, 0 where it is of another one."""


def pack_sentence_pairs(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
    key: Key = BLOCK_SIZE,
) -> SentencePairs:
    """Make windows of two parts, [CLS] A [SEP] B [SEP], and hide tokens in them.

    A is a stretch of a document, as long as is drawn. B is what follows it, or in every second window a
    stretch of another document. What a window has left is filled with its own beginning, as a text that is
    not scored. Arguments are those of `pack`.

    Raises:
        InputError: there are fewer than two documents, or their text fills less than one window; or the
            tokenizer has no mask token.
    """
    require_mask(tokenizer)
    opening, closing = (np.array(ids(tokenizer), np.int32) for ids in (opening_ids, closing_ids))
    room = block_size - len(opening) - 2 * len(closing)
    rng = np.random.default_rng(seed)
    wanted = None if limit is None else limit * block_size
    ids, scored, lengths = tokenised(shuffled(documents, rng), tokenizer, wanted, _as_is)
    require_window(len(ids), block_size, key)
    ends = np.cumsum(lengths)
    texts = [(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]
    texts = [(start, end) for start, end in texts if end - start >= 2 * SHORTEST]
    if len(texts) < 2:
        raise InputError(
            "pairs are made of two documents or more, and the training text has one that is long enough",
            where=recipe_key("data", "train"),
            remedy="Give more documents, or leave objective.nsp out.",
        )
    spans = list(_spans(texts, room, rng))
    chosen = [spans[index] for index in rng.permutation(len(spans))[:limit]]
    no_text = np.zeros(0, np.int32)

    def window(parts: tuple[tuple[int, int], tuple[int, int]]) -> list[NDArray[np.int64]]:
        pieces: list[Ids] = [opening]
        flags: list[Flags] = [np.zeros(len(opening), np.bool_)]
        types = [np.zeros(len(opening), np.int64)]
        for number, (start, end) in enumerate(parts):
            pieces += [ids[start:end], closing]
            flags += [scored[start:end], np.zeros(len(closing), np.bool_)]
            types.append(np.full(end - start + len(closing), number, np.int64))
        text_T = np.concatenate([*pieces, no_text]).astype(np.int64)
        targets_T = np.where(np.concatenate(flags), text_T, IGNORED_LABEL)
        filled = (0, block_size - len(text_T))
        return [
            np.pad(text_T, filled, mode="wrap"),
            np.pad(targets_T, filled, constant_values=IGNORED_LABEL),
            np.pad(np.zeros(len(text_T), np.int64), filled, constant_values=1),
            np.pad(np.concatenate(types), filled),
        ]

    made = [window(parts) for parts in chosen]
    input_ids, targets, segments, token_types = (np.stack(each) for each in zip(*made, strict=True))
    follows = np.array([[first[1] == second[0]] for first, second in chosen], np.int64)
    fields = hidden_in(PackedWindows(input_ids, targets, segments), tokenizer, seed)
    return SentencePairs(**fields, token_types=token_types, follows=follows)


def _spans(
    texts: Sequence[tuple[int, int]], room: int, rng: np.random.Generator
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where the two parts of each window are in the tokens; every second one follows the first."""
    number = 0
    for index, (start, end) in enumerate(texts):
        while end - start >= 2 * SHORTEST:
            length = min(room, end - start)
            cut = start + int(np.clip(rng.uniform(*EDGES) * length, SHORTEST, length - SHORTEST))
            if number % 2 == 0:
                yield (start, cut), (cut, start + length)
                start += length
            else:
                other_start, other_end = texts[(index + 1 + int(rng.integers(len(texts) - 1))) % len(texts)]
                size = min(room - (cut - start), other_end - other_start)
                begin = other_start + int(rng.integers(other_end - other_start - size + 1))
                yield (start, cut), (begin, begin + size)
                start = cut
            number += 1


def _as_is(ids: Ids, scored: Flags, _tokenizer: PreTrainedTokenizerFast) -> tuple[Ids, Flags]:
    return ids, scored
