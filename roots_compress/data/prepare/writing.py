"""The last passes: documents that are left go to buckets by their order, and from the buckets into shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.prepare.duplicates import Marks, meaning
from roots_compress.data.prepare.filters import Removal
from roots_compress.data.prepare.journal import Journal
from roots_compress.data.prepare.mixing import copies, order_keys
from roots_compress.data.prepare.reading import ENTRY, INDEX, REMOVED, TEXTS, counters, removed_line
from roots_compress.data.prepare.shards import ENDINGS, Shard
from roots_compress.progress import Progress
from roots_compress.results import Json

BUCKET_BYTES = 1 << 25
"""Text that is put in order in memory."""
BLOCK_DOCUMENTS = 1 << 14
HEADER = np.dtype([("key", "<u8"), ("bytes", "<u4"), ("source", "<u4")])
EXACT, NEAR, NOT_DRAWN = "duplicates.exact", "duplicates.near", "mixture"


class Block(NamedTuple):
    """Some documents after another, and what is known of them."""

    start: int
    entries: NDArray[np.void]
    marks: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Whether a document is no duplicate."""
        kept: NDArray[np.bool_] = self.marks == 0
        return kept


def blocks(index: Path, marks: Marks, start: int = 0) -> Iterator[Block]:
    """Yield all documents from one on in blocks."""
    with index.open("rb") as file:
        file.seek(start * ENTRY.itemsize)
        while data := file.read(BLOCK_DOCUMENTS * ENTRY.itemsize):
            entries = np.frombuffer(data, ENTRY)
            yield Block(start, entries, marks.read(start, len(entries)))
            start += len(entries)


def kept_bytes(index: Path, marks: Marks, sources: int) -> list[int]:
    """Return the bytes of text of each source that are no duplicates'."""
    found = np.zeros(sources, np.int64)
    for block in blocks(index, marks):
        entries = block.entries[block.kept]
        found += np.bincount(entries["source"], entries["bytes"], sources).astype(np.int64)
    return [int(size) for size in found]


@dataclass
class Buckets:
    """The pass that brings each document to the bucket of its order.

    Attributes:
        journal: its texts are parted.
        averages: how often the documents of each source stand in the mixture.
    """

    journal: Journal
    config: PrepareConfig
    names: list[str]
    averages: list[float]
    count: int

    def run(self, marks: Marks, progress: Progress) -> list[Counter[str]]:
        """Do all that was not done before; return of each source what was removed, and what is left."""
        journal, folder = self.journal, self.journal.folder
        position = dict(journal.position)
        counts = counters(position.get("mixed"), len(self.names))
        start = position.get("document", 0)
        total = journal.length(INDEX) // ENTRY.itemsize
        averages = np.array(self.averages)
        with (folder / TEXTS).open("rb") as texts:
            for block in blocks(folder / INDEX, marks, start):
                numbers = np.arange(block.start, block.start + len(block.entries), dtype=np.uint64)
                wanted = copies(numbers, averages[block.entries["source"]], self.config.seed)
                wanted[~block.kept] = 0
                for at, (entry, mark, times) in enumerate(
                    zip(block.entries, block.marks.tolist(), wanted.tolist(), strict=True)
                ):
                    place, text = _read(texts, entry)
                    if times:
                        self._write(block.start + at, int(entry["source"]), text, times, total)
                        counts[entry["source"]].update({"documents": times, "text bytes": times * len(text)})
                    else:
                        self._remove(entry, place, mark, texts, counts)
                    if journal.is_full:
                        position |= {
                            "document": block.start + at + 1,
                            "mixed": [dict(each) for each in counts],
                        }
                        journal.commit(dict(position))
                        progress(block.start + at + 1, total)
        return counts

    def _write(self, number: int, source: int, text: bytes, times: int, total: int) -> None:
        numbers = np.full(times, number, np.uint64)
        keys = order_keys(numbers, np.arange(times), self.config.seed) if self.config.shuffle else numbers
        for key in keys.tolist():
            bucket = key * self.count >> 64 if self.config.shuffle else key * self.count // total
            header = np.array([(key, len(text), source)], HEADER).tobytes()
            self.journal.append(bucket_name(bucket), header + text)

    def _remove(
        self, entry: np.void, place: bytes, mark: int, texts: BinaryIO, counts: list[Counter[str]]
    ) -> None:
        name, more = self.names[entry["source"]], dict[str, Json]()
        reason = NOT_DRAWN
        value: float | None = self.averages[entry["source"]]
        if mark:
            exact, of = meaning(mark)
            with (self.journal.folder / INDEX).open("rb") as index:
                index.seek(of * ENTRY.itemsize)
                other = np.frombuffer(index.read(ENTRY.itemsize), ENTRY)[0]
            reason, value = (EXACT if exact else NEAR), None
            texts.seek(int(other["offset"]))
            more = {
                "of": texts.read(int(other["place"])).decode(errors="replace"),
                "of_source": self.names[other["source"]],
            }
        counts[entry["source"]][reason] += 1
        line = removed_line(name, place.decode(errors="replace"), Removal(reason, value), **more)
        self.journal.append(REMOVED, line)


def bucket_name(bucket: int) -> str:
    """Return the file of a bucket."""
    return f"bucket-{bucket:06d}"


def write_shards(
    journal: Journal, config: PrepareConfig, names: list[str], buckets: int, out: Path, progress: Progress
) -> list[dict[str, Json]]:
    """Write the buckets' documents in their order into shards, from the last whole shard on.

    Args:
        journal: has the buckets, and keeps how far the writing is.
        progress: told of buckets.

    Returns:
        What the datasheet says of each shard.
    """
    position = dict(journal.position)
    written: list[dict[str, Json]] = list(position.get("shards", []))
    first, row = position.get("bucket", 0), position.get("row", 0)
    shard: Shard | None = None
    try:
        for bucket in range(first, buckets):
            for at, (text, source, size) in enumerate(_ordered(journal.folder / bucket_name(bucket))):
                if bucket == first and at < row:
                    continue
                if shard is None:
                    shard = Shard(out / f"part-{len(written):05d}{ENDINGS[config.format]}", config.format)
                shard.add(text, names[source], size)
                if shard.text_bytes >= config.shard_bytes:
                    written.append(shard.finish())
                    shard = None
                    journal.commit({**position, "bucket": bucket, "row": at + 1, "shards": written})
            progress(bucket + 1, buckets)
        if shard is not None:
            written.append(shard.finish())
            shard = None
    finally:
        if shard is not None:
            shard.abandon()
    return written


def _ordered(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield text, source and bytes of a bucket's documents, in the order of their keys."""
    if not path.exists():
        return
    data = memoryview(path.read_bytes())
    places: list[tuple[int, int, int, int]] = []
    at = 0
    while at < len(data):
        header = np.frombuffer(data[at : at + HEADER.itemsize], HEADER)[0]
        at += HEADER.itemsize
        places.append((int(header["key"]), at, int(header["bytes"]), int(header["source"])))
        at += int(header["bytes"])
    for _, start, size, source in sorted(places):
        yield str(data[start : start + size], "utf-8"), source, size


def _read(texts: BinaryIO, entry: np.void) -> tuple[bytes, bytes]:
    """Return place and text of a document."""
    texts.seek(int(entry["offset"]))
    length = int(entry["place"])
    data = texts.read(length + int(entry["bytes"]))
    return data[:length], data[length:]
