"""Pairs packed into windows, to train and calibrate on.

Shape legend: N windows, S tokens of sources, T tokens of targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import SOURCE, TARGET, Document
from roots_compress.data.packing import BATCH_DOCUMENTS, BLOCK_SIZE
from roots_compress.data.pairs import Ids, shifted, sides
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows


@dataclass(frozen=True)
class PairWindows(PackedWindows):
    """Windows of packed pairs: `input_ids` are the decoder's inputs for `targets`, each pair from `START` on.

    A decoder's tokens see the source of their own segment.
    """

    source_ids: Ids = field(kw_only=True)
    """`(N, S)`."""
    source_segment_ids: Ids = field(kw_only=True)
    """`(N, S)`: number of each source within its window."""

    @property
    def source(self) -> tuple[Ids, Ids]:
        return self.source_ids, self.source_segment_ids


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
        """Return tokens, targets, segments, sources and their segments; the rest repeats the first.

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
        block_size: tokens of each side of a window; the rest of a longer text is left out.
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
