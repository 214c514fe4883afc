"""Windows of pairs of texts, of which the second follows the first in half of the pairs (BERT).

Shape legend: N windows of T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.masking import MaskedWindows, hidden_in
from roots_compress.data.packing import Flags, Ids, require_window, shuffled, tokenised
from roots_compress.data.special_tokens import closing_ids, opening_ids, require_mask
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import InputError, recipe_key

SHORTEST = 2
"""Tokens of the shortest part."""
EDGES = 0.25, 0.75
"""Between these shares of a pair the second part begins."""
OPEN_WINDOWS = 16
"""Windows that wait for a pair that fits."""


@dataclass(frozen=True)
class SentencePairs(MaskedWindows):
    """Windows of pairs that hide tokens, and ask of each pair whether its second part follows the first."""

    follows: NDArray[np.int64]
    """`(N, T)`: at a pair's first position 1 where the second part follows the first in its document, and 0
    where it is of another one; `IGNORED_LABEL` everywhere else."""


class _Pair(NamedTuple):
    """Where the two parts of a pair are in the tokens."""

    first: tuple[int, int]
    second: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Of both parts."""
        return self.first[1] - self.first[0] + self.second[1] - self.second[0]


def pack_sentence_pairs(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> SentencePairs:
    """Make windows of pairs, [CLS] A [SEP] B [SEP], and hide tokens in them.

    A and B are a stretch of a document, of at most a window, cut in two where it is drawn. In every second
    pair B is exchanged for the B of another document's pair, which is about as long: so neither how B begins
    and ends nor its length tells whether it follows A. A window holds as many pairs as fit, each a text of
    its own. What it has left is filled with its own beginning, which is not scored. Arguments are those of
    `pack`.

    Raises:
        InputError: there are fewer than two documents, or their text fills less than one window; or the
            tokenizer has no mask token.
    """
    require_mask(tokenizer)
    opening, closing = (np.array(ids(tokenizer), np.int32) for ids in (opening_ids, closing_ids))
    edges = len(opening) + 2 * len(closing)
    rng = np.random.default_rng(seed)
    wanted = None if limit is None else limit * block_size
    order = shuffled(documents, rng)
    ids, scored, lengths = tokenised(order, tokenizer, wanted, lambda ids, scored, _: (ids, scored))
    require_window(len(ids), block_size)
    ends = np.cumsum(lengths)
    texts = [(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]
    texts = [(start, end) for start, end in texts if end - start >= 2 * SHORTEST]
    if len(texts) < 2:
        raise InputError(
            "pairs are made of two documents or more, and the training text has one that is long enough",
            where=recipe_key("data", "train"),
            remedy="Give more documents, or leave objective.nsp out.",
        )
    pairs = _pairs(texts, block_size - edges, rng)
    windows = _windows([pairs[index] for index in rng.permutation(len(pairs))], edges, block_size)[:limit]

    def window(pairs: Sequence[_Pair]) -> list[NDArray[np.int64]]:
        pieces: list[Ids] = []
        flags: list[Flags] = []
        types: list[NDArray[np.int64]] = []
        starts: list[int] = []
        for first, second in pairs:
            starts.append(sum(map(len, pieces)))
            parts = [ids[slice(*first)], ids[slice(*second)]]
            before, after = (np.zeros(len(each), np.bool_) for each in (opening, closing))
            pieces += [opening, parts[0], closing, parts[1], closing]
            flags += [before, scored[slice(*first)], after, scored[slice(*second)], after]
            begin = len(opening) + len(parts[0]) + len(closing)
            types += [np.zeros(begin, np.int64), np.ones(len(parts[1]) + len(closing), np.int64)]
        text_T = np.concatenate(pieces).astype(np.int64)
        targets_T = np.where(np.concatenate(flags), text_T, IGNORED_LABEL)
        follows_T = np.full(block_size, IGNORED_LABEL, np.int64)
        follows_T[starts] = [first[1] == second[0] for first, second in pairs]
        segments_T = np.repeat(np.arange(len(pairs)), np.diff([*starts, len(text_T)]))
        filled = (0, block_size - len(text_T))
        return [
            np.pad(text_T, filled, mode="wrap"),
            np.pad(targets_T, filled, constant_values=IGNORED_LABEL),
            np.pad(segments_T, filled, constant_values=len(pairs)),
            np.pad(np.concatenate(types), filled),
            follows_T,
        ]

    made = [window(each) for each in windows]
    input_ids, targets, segments, token_types, follows = (np.stack(each) for each in zip(*made, strict=True))
    fields = hidden_in(PackedWindows(input_ids, targets, segments), tokenizer, seed)
    return SentencePairs(**fields, token_types=token_types, follows=follows)


def _pairs(texts: Sequence[tuple[int, int]], room: int, rng: np.random.Generator) -> list[_Pair]:
    """Return the pairs of all documents, half of which have a second part of another document."""
    pairs: list[_Pair] = []
    documents: list[int] = []
    for document, (start, end) in enumerate(texts):
        while end - start >= 2 * SHORTEST:
            length = min(room, end - start)
            cut = start + int(np.clip(rng.uniform(*EDGES) * length, SHORTEST, length - SHORTEST))
            pairs.append(_Pair((start, cut), (cut, start + length)))
            documents.append(document)
            start += length
    others = _others(pairs, documents, room)
    exchanged = list(pairs)
    for index in rng.permutation(len(pairs))[: len(pairs) // 2].tolist():
        first, (start, end) = pairs[index].first, pairs[others[index]].second
        exchanged[index] = _Pair(first, (start, min(end, start + room - (first[1] - first[0]))))
    return exchanged


def _others(pairs: Sequence[_Pair], documents: Sequence[int], room: int) -> dict[int, int]:
    """Return for each pair one of another document, with the next longer second part where there is one.

    Pairs that fill a window, whose second parts end within a document, are exchanged among each other first.
    """
    order = sorted(
        range(len(pairs)),
        key=lambda at: (pairs[at].tokens == room, pairs[at].second[1] - pairs[at].second[0]),
    )
    found: dict[int, int] = {}
    nearest: int | None = None
    for at in reversed([*order, *order]):  # Twice round: after the longest comes the shortest.
        if nearest is not None and documents[nearest] != documents[at]:
            found[at] = nearest
        elif nearest in found:
            found[at] = found[nearest]
        nearest = at
    return found


def _windows(pairs: Sequence[_Pair], edges: int, block_size: int) -> list[list[_Pair]]:
    """Put each pair into the first of the last windows that has room for it, or into a new one."""
    windows: list[list[_Pair]] = []
    left: list[int] = []
    for pair in pairs:
        size = pair.tokens + edges
        last = range(max(0, len(windows) - OPEN_WINDOWS), len(windows))
        at = next((number for number in last if left[number] >= size), len(windows))
        if at == len(windows):
            windows.append([])
            left.append(block_size)
        windows[at].append(pair)
        left[at] -= size
    return windows
