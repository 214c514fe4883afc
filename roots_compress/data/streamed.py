"""The documents of a corpus that `data prepare` made, read from its shards when they are asked for."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

from roots_compress.data.documents import Document
from roots_compress.data.sources.prepared import REMEDY, checked_shards, read_datasheet
from roots_compress.data.sources.readers import read_documents
from roots_compress.errors import InputError


class _Part(NamedTuple):
    """What is read at once: a row group of a Parquet file, or a whole file of JSON Lines."""

    path: Path
    group: int | None


class StreamedDocuments(Sequence[Document]):
    """Documents in the order of the shards, from one on and round to the first.

    One part of a shard is in memory: documents that follow one another are read once.

    Args:
        folder: of the corpus, whose documents are in a drawn order.

    Raises:
        InputError: a shard is missing or was changed, or holds another number of documents.
    """

    def __init__(self, folder: Path, datasheet: dict[str, Any]) -> None:
        self.text_bytes: int = datasheet["text_bytes"]
        self._corpus_sha256: str = datasheet["sha256"]
        self._parts: list[_Part] = []
        counts: list[int] = []
        shards = checked_shards(folder, datasheet)
        for path, each in zip(shards, datasheet["shards"], strict=True):
            if path.suffix != ".parquet":
                self._parts.append(_Part(path, None))
                counts.append(each["documents"])
                continue
            import pyarrow.parquet

            with path.open("rb") as file:
                metadata = pyarrow.parquet.read_metadata(file)
            for group in range(metadata.num_row_groups):
                self._parts.append(_Part(path, group))
                counts.append(metadata.row_group(group).num_rows)
        self._ends = list(accumulate(counts))
        self._count, self._start = self._ends[-1], 0
        self._read: tuple[int, list[Document]] = (-1, [])

    def first(self, count: int, text_bytes: int) -> Self:
        """Return the first documents only, and their bytes of text."""
        found = self._copy()
        found._count, found.text_bytes = count, text_bytes
        return found

    def beginning_at(self, start: int) -> Self:
        """Return the same documents from another one on, and round to it."""
        found = self._copy()
        found._start = start
        return found

    @property
    def sha256(self) -> str:
        """Of what the documents are; their order begins where it does in the shards."""
        return hashlib.sha256(f"{self._corpus_sha256} {self._count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        """Return a document, or some as a list."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        number = (self._start + index) % self._count
        part = bisect_right(self._ends, number)
        first = self._ends[part - 1] if part else 0
        if self._read[0] != part:
            found = _documents(self._parts[part])
            if len(found) != self._ends[part] - first:
                raise InputError(
                    f"holds {len(found):,} documents where the datasheet counts {self._ends[part] - first:,}",
                    where=self._parts[part].path,
                    remedy=REMEDY,
                )
            self._read = part, found
        return self._read[1][number - first]

    def __iter__(self) -> Iterator[Document]:
        return (self[number] for number in range(self._count))

    def _copy(self) -> Self:
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__)
        return found


def streamed(paths: Sequence[Path]) -> tuple[StreamedDocuments, dict[str, Any]] | None:
    """Return documents and datasheet of a corpus in a drawn order; None where something else is named.

    Raises:
        InputError: a shard is missing or was changed.
    """
    is_folder = len(paths) == 1 and os.path.isdir(paths[0])  # noqa: PTH112 (see `_read_paths`)
    datasheet = read_datasheet(paths[0]) if is_folder else None
    if datasheet is None or not datasheet["settings"]["shuffle"]:
        return None
    return StreamedDocuments(paths[0], datasheet), datasheet


def _documents(part: _Part) -> list[Document]:
    if part.group is None:
        return read_documents(part.path)
    import pyarrow.parquet

    with part.path.open("rb") as file:
        table = pyarrow.parquet.ParquetFile(file).read_row_group(part.group, columns=["text"])
    return [Document.plain(text) for text in table["text"].to_pylist()]
