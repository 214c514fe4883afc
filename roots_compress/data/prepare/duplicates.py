"""Duplicates among any number of documents, in the memory that some hundred thousand take.

Documents are known by their numbers, in the order in which they were read. A document is removed if an
earlier one with a common key is similar enough. Keys are grouped on disk: a file of keys is split by hashes
of the keys until a part fits in memory, where it is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from roots_compress.data.prepare.words import Hashes, mixed
from roots_compress.io.atomic import remove_folder

Numbers = NDArray[np.int64]
Block = tuple[Hashes, Numbers]

MOST_KEYS = 1 << 18
"""Keys that are sorted at a time: 4 MB with the numbers of their documents."""
MOST_PARTS = 256
MOST_LEADERS = 16
"""Documents of one key that others of that key are compared with."""
ROW = np.dtype([("key", "<u8"), ("number", "<i8")])


class Marks:
    """A file with a mark for each document: whether it is removed, and which document it repeats.

    Args:
        path: made with a zero for each document where it is not there.
    """

    ITEM = 8

    def __init__(self, path: Path, documents: int) -> None:
        if not path.exists() or path.stat().st_size != documents * self.ITEM:
            with path.open("wb") as file:
                file.truncate(documents * self.ITEM)
        self._file = path.open("r+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, start: int, count: int) -> Numbers:
        """Return the marks of some documents: 0, or `2 * of + 1` (exact), or `2 * of + 2` (near)."""
        self._file.seek(start * self.ITEM)
        return np.frombuffer(self._file.read(count * self.ITEM), "<i8")

    def set(self, number: int, of: int, *, exact: bool) -> None:
        """Mark a document as a duplicate of another, unless it is marked already."""
        if self.read(number, 1)[0] == 0:
            self._file.seek(number * self.ITEM)
            self._file.write((2 * of + (1 if exact else 2)).to_bytes(self.ITEM, "little"))

    def flush(self) -> None:
        """Write the set marks."""
        self._file.flush()


def meaning(mark: int) -> tuple[bool, int]:
    """Return whether a mark is that of an exact duplicate, and of which document."""
    return mark % 2 == 1, (mark - 1) // 2


def mark_alike(
    keys: Path, signatures: Path, marks: Marks, *, width: int, threshold: float, exact: bool, scratch: Path
) -> None:
    """Mark similar documents that have a common key.

    Args:
        keys: a file of one key of each document, 8 bytes.
        signatures: a file of one signature of each document: `width` values of 4 bytes.
        marks: is added to; exact duplicates in it are passed over.
        threshold: the least share of common values of two signatures.
        scratch: a folder for parts of the file of keys; made, and removed.
    """
    remove_folder(scratch)
    scratch.mkdir()
    key: int | None = None
    leaders: list[tuple[int, NDArray[np.uint32]]] = []
    with signatures.open("rb") as file:
        for keys_K, numbers_K in _together(keys, scratch):
            same_as_next = np.append(keys_K[1:] == keys_K[:-1], False)
            shared = same_as_next | np.append(key == int(keys_K[0]), same_as_next[:-1])
            for found, number in zip(keys_K[shared].tolist(), numbers_K[shared].tolist(), strict=True):
                if found != key:
                    key, leaders = found, []
                mark = int(marks.read(number, 1)[0])
                if mark and meaning(mark)[0]:
                    continue
                signature = _signature(file, number, width)
                of = next((lead for lead, own in leaders if (own == signature).mean() >= threshold), None)
                if of is not None:
                    marks.set(number, of, exact=exact)
                elif len(leaders) < MOST_LEADERS:
                    leaders.append((number, signature))
    marks.flush()
    remove_folder(scratch)


def _together(path: Path, scratch: Path, *, numbered: bool = False, depth: int = 0) -> Iterator[Block]:
    """Yield a file's keys with their documents: equal keys follow one another, documents in their order.

    Args:
        path: keys of documents 0, 1, ..., or where `numbered` rows of a key and a document.
        scratch: takes parts of the file.
        numbered: what the file holds.
        depth: how often it was parted so far.
    """
    count = path.stat().st_size // (ROW.itemsize if numbered else 8)
    if count <= MOST_KEYS:
        for keys, numbers in _blocks(path, numbered):
            order = np.argsort(keys, kind="stable")
            yield keys[order], numbers[order]
    elif numbered and _is_one_key(path):
        yield from _blocks(path, numbered)
    else:
        parts = min(MOST_PARTS, 2 * count // MOST_KEYS + 1)
        places = [scratch / f"{depth}-{part}" for part in range(parts)]
        for keys, numbers in _blocks(path, numbered):
            part_of_key = mixed(keys + np.uint64(depth + 1)) % np.uint64(parts)
            order = np.argsort(part_of_key, kind="stable")
            rows = np.empty(len(keys), ROW)
            rows["key"], rows["number"] = keys[order], numbers[order]
            ends = np.searchsorted(part_of_key[order], np.arange(parts), side="right")
            for place, part in zip(places, np.split(rows, ends[:-1]), strict=True):
                if len(part):
                    with place.open("ab") as file:
                        file.write(part.tobytes())
        for place in places:
            if place.exists():
                yield from _together(place, scratch, numbered=True, depth=depth + 1)
                place.unlink()


def _is_one_key(path: Path) -> bool:
    """Return whether all rows of a file have one key, which no parting would part."""
    first = next(_blocks(path, True))[0][0]
    return all(bool((keys == first).all()) for keys, _ in _blocks(path, True))


def _blocks(path: Path, numbered: bool) -> Iterator[Block]:
    """Yield the keys of a file and their documents in its order, at most `MOST_KEYS` at a time."""
    item = ROW.itemsize if numbered else 8
    start = 0
    with path.open("rb") as file:
        while data := file.read(MOST_KEYS * item):
            if numbered:
                rows = np.frombuffer(data, ROW)
                yield rows["key"], rows["number"]
            else:
                keys = np.frombuffer(data, "<u8")
                yield keys, np.arange(start, start + len(keys))
                start += len(keys)


def _signature(file: BinaryIO, number: int, width: int) -> NDArray[np.uint32]:
    file.seek(number * width * 4)
    return np.frombuffer(file.read(width * 4), "<u4")
