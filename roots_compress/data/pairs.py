"""Pairs of a source and a target as models read them: one by one to be judged, packed to train and calibrate.

Shape legend: N pairs or windows, S tokens of sources, T tokens of targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import SOURCE, TARGET, Document
from roots_compress.data.encoding import bytes_of_tokens, encode
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.languages import language_of, target_frame
from roots_compress.data.packing import BATCH_DOCUMENTS, BLOCK_SIZE
from roots_compress.data.special_tokens import closing_ids, missing_ending, opening_ids
from roots_compress.data.texts import EVALUATED_LENGTH, evenly
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import IGNORED_LABEL, START, EvaluationWindows, PackedWindows
from roots_compress.errors import InputError, Key

Ids = NDArray[np.int64]


class Frame(NamedTuple):
    """What stands around a text: what the tokenizer puts there, or after it EOS where it puts nothing."""

    opening: list[int]
    closing: list[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, name: str = SOURCE) -> Frame:
        """Return that of a tokenizer. One that closes no text would open targets with BOS for nothing.

        Raises:
            InputError: it tells languages apart, and nothing names that of the targets.
        """
        if not closing_ids(tokenizer):
            return cls([], missing_ending([], tokenizer))
        if name == TARGET:
            return cls(*target_frame(tokenizer))
        return cls(opening_ids(tokenizer), closing_ids(tokenizer))

    def around(self, ids: Sequence[int]) -> list[int]:
        """Return a text's tokens with what is put around them."""
        return [*self.opening, *ids, *self.closing]

    def room(self, longest: int, key: Key) -> int:
        """Return the tokens of text that are left of `longest`.

        Raises:
            InputError: there are none.
        """
        room = longest - len(self.opening) - len(self.closing)
        if room < 1:
            raise InputError(
                f"{longest} tokens have no room for text between what is put around it",
                where=key,
                remedy="Raise it.",
            )
        return room


class Side(NamedTuple):
    """The tokens of a text, and the UTF-8 bytes that they stand for."""

    ids: list[int]
    text_bytes: int


def sides(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, longest: int, *, name: str, key: Key
) -> list[Side]:
    """Return texts as a model reads or says them, each cut to so many tokens.

    Args:
        texts: sources, or targets.
        tokenizer: of the model.
        name: which of both they are.
        longest: most tokens, with what is put around a text.
        key: of the setting that says so, for the message.

    Raises:
        InputError: there is no room for text.
    """
    frame = Frame.of(tokenizer, name)
    room = frame.room(longest, key)
    ids: list[list[int]] = [[] for _ in texts]
    counts: list[list[int]] = [[] for _ in texts]
    uncounted = 0
    for piece in encode(texts, tokenizer):
        uncounted = uncounted if piece.start else 0
        token_bytes, uncounted = bytes_of_tokens(texts[piece.number], piece, uncounted)
        ids[piece.number].extend(piece.tokens.ids.tolist())
        counts[piece.number].extend(token_bytes.tolist())
    return [Side(frame.around(each[:room]), sum(of[:room])) for each, of in zip(ids, counts, strict=True)]


@dataclass(frozen=True)
class PairWindows(PackedWindows):
    """Windows of packed pairs: `input_ids` are what a decoder reads for `targets`, each pair from `START` on.

    A decoder's tokens see the source of their own segment.
    """

    source_ids: Ids = field(kw_only=True)
    """`(N, S)`."""
    source_segment_ids: Ids = field(kw_only=True)
    """`(N, S)`: number of each source within its window."""

    @property
    def source(self) -> tuple[Ids, Ids]:
        """Tokens and segments of the sources."""
        return self.source_ids, self.source_segment_ids


@dataclass(frozen=True)
class EvaluationPairs(EvaluationWindows):
    """Pairs, each by itself, padded on the right; `input_ids` are the sources."""

    mask: Ids = field(kw_only=True)
    """`(N, S)`, 0 at padding."""
    targets: Ids = field(kw_only=True)
    """`(N, T)`, -100 at padding."""
    references: tuple[str, ...] = field(kw_only=True)
    """The targets as they were given."""
    opening: tuple[int, ...] = field(kw_only=True)
    """What each target begins with whatever the model says: the token of its language, if it has one."""
    tokenizer: PreTrainedTokenizerFast = field(kw_only=True)
    """Makes text of what is written."""

    @property
    def scored(self) -> NDArray[np.bool_]:
        """`(N, T)`, False at padding of targets."""
        scored_NT: NDArray[np.bool_] = self.targets != IGNORED_LABEL
        return scored_NT

    @property
    def scored_tokens(self) -> int:
        """Tokens of all targets."""
        return int(self.scored.sum())

    def decoder_tokens(self, start: int) -> Ids:
        """Return what a decoder reads that begins with a token, `(N, T)`; any token at padding."""
        read_NT = np.where(self.scored, self.targets, start)
        return np.concatenate((np.full_like(read_NT[:, :1], start), read_NT[:, :-1]), axis=1)


def shifted(target: Sequence[int]) -> list[int]:
    """Return what a decoder reads to say a target."""
    return [START, *target[:-1]]


def evaluation_pairs(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, limit: int
) -> EvaluationPairs:
    """Return pairs at even distances, each side cut to so many tokens.

    Args:
        documents: pairs.
        tokenizer: of the model.
        longest: most tokens of a source, and of a target.
        limit: most pairs.

    Raises:
        InputError: there is no room for text.
    """
    chosen = evenly(documents, limit)
    texts = {name: [each.named(name) for each in chosen] for name in (SOURCE, TARGET)}
    read, said = (
        sides(each, tokenizer, longest, name=name, key=EVALUATED_LENGTH) for name, each in texts.items()
    )
    opening = () if language_of(tokenizer) is None else tuple(target_frame(tokenizer)[0])
    pad = tokenizer.pad_token_id or 0
    return EvaluationPairs(
        input_ids=padded([each.ids for each in read], pad),
        bos=bool(Frame.of(tokenizer).opening),
        text_bytes=sum(each.text_bytes for each in said),
        text_sha256=text_sha256(documents),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        mask=padded([[1] * len(each.ids) for each in read], 0),
        targets=padded([each.ids for each in said], IGNORED_LABEL),
        references=tuple(texts[TARGET]),
        opening=opening,
        tokenizer=tokenizer,
    )


def padded(rows: Sequence[Sequence[int]], value: int) -> Ids:
    """Return rows as one array, the shorter ones filled up on the right."""
    found = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found


class _Window:
    """A window that is being filled with pairs."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._parts: list[tuple[list[int], list[int]]] = []
        self._used = [0, 0]

    def put(self, source: list[int], target: list[int]) -> bool:
        """Add a pair, and return True, unless there is no room for it."""
        used = [self._used[0] + len(source), self._used[1] + len(target)]
        if self._parts and max(used) > self._size:
            return False
        self._parts.append((source, target))
        self._used = used
        return True

    def arrays(self) -> tuple[Ids, Ids, Ids, Ids, Ids]:
        """Return tokens, targets, segments, sources and their segments; what is left is filled by the first.

        The rest of a window is a segment of its own that is not scored: padding would enter calibration
        statistics as if it were text.
        """
        parts = [*self._parts, (self._filling(0), self._filling(1))]
        unscored = len(parts) - 1
        read = [shifted(target) if target else [] for _, target in parts]
        said = [
            [IGNORED_LABEL] * len(target) if number == unscored else target
            for number, (_, target) in enumerate(parts)
        ]
        sources = [source for source, _ in parts]
        return (_row(read), _row(said), _segments(read), _row(sources), _segments(sources))

    def _filling(self, side: int) -> list[int]:
        first: list[int] = [token for part in self._parts for token in part[side]]
        return np.resize(first, self._size - self._used[side]).tolist()


def _row(parts: Sequence[Sequence[int]]) -> Ids:
    return np.array([token for part in parts for token in part], dtype=np.int64)


def _segments(parts: Sequence[Sequence[int]]) -> Ids:
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int64)


def pack_pairs(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PairWindows:
    """Pack pairs into windows of `block_size` tokens of sources and as many of targets.

    Args:
        documents: pairs.
        tokenizer: of the model.
        block_size: tokens of each side of a window; the rest of a longer text is left out.
        seed: decides the order.
        limit: the most windows to return; no more pairs are tokenised than these need.

    Raises:
        InputError: there is no room for text.
    """
    windows, _ = _filled(documents, tokenizer, block_size, seed, limit)
    read, said, segments, sources, of_sources = (
        np.stack(each) for each in zip(*(window.arrays() for window in windows), strict=True)
    )
    return PairWindows(read, said, segments, source_ids=sources, source_segment_ids=of_sources)


def documents_packed(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> list[int]:
    """Return the numbers of the pairs that `pack_pairs` puts into windows, in their order."""
    return _filled(documents, tokenizer, block_size, seed, limit)[1]


def _filled(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    seed: int,
    limit: int | None,
) -> tuple[list[_Window], list[int]]:
    """Return windows of pairs in an order drawn from the seed, and the numbers of these pairs."""
    windows, read = [_Window(block_size)], list[int]()
    for index, source, target in _in_order(documents, tokenizer, block_size, seed):
        if not windows[-1].put(source, target):
            if len(windows) == limit:
                break
            windows.append(_Window(block_size))
            windows[-1].put(source, target)
        read.append(index)
    return windows, read


def _in_order(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, longest: int, seed: int
) -> Iterator[tuple[int, list[int], list[int]]]:
    """Yield the numbers and tokens of pairs in an order drawn from the seed."""
    order = np.random.default_rng(seed).permutation(len(documents))
    for start in range(0, len(order), BATCH_DOCUMENTS):
        batch = order[start : start + BATCH_DOCUMENTS].tolist()
        read, said = (
            sides(
                [documents[index].named(name) for index in batch],
                tokenizer,
                longest,
                name=name,
                key=BLOCK_SIZE,
            )
            for name in (SOURCE, TARGET)
        )
        for index, source, target in zip(batch, read, said, strict=True):
            yield index, source.ids, target.ids
