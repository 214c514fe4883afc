"""The pass over the sources: each document is read, examined, and kept with its hashes for duplicates."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.documents import Document
from roots_compress.data.prepare.examiner import Examine, Examined, Hashed
from roots_compress.data.prepare.filters import Removal
from roots_compress.data.prepare.journal import Journal
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.readers import stream_documents
from roots_compress.errors import InputError
from roots_compress.results import Json

TEXTS, INDEX, DIGESTS, SIGNATURES, REMOVED = "texts", "index", "digests", "signatures", "removed"
EXACT_KEYS = "keys-exact"
ENTRY = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("place", "<u2"), ("source", "<u2")])
"""Where a document begins in the texts, the bytes of its text and of its place before it, and its source."""
DIGEST_VALUES = 8
"""A sha256, as 4-byte values."""

TOLD_EVERY = 1000
"""Documents of a file after which progress is told."""
Told = Callable[[int], None]
"""Called with how many bytes of the sources have been read."""


def near_keys(band: int) -> str:
    """Return the name of the file of one band's keys."""
    return f"keys-near-{band:03d}"


@dataclass(frozen=True)
class SourceFiles:
    """A source's files, by which documents are read."""

    name: str
    files: tuple[tuple[str, Path, int], ...]
    """Of each its name in the source, its path, and its bytes."""


class _Place(NamedTuple):
    """Where a document is in the sources."""

    source: int
    file: int
    record: int
    name: bytes
    """Its file and line, for people."""
    read_bytes: int
    """Of the sources when it was read, as far as that is known."""


@dataclass
class Reading:
    """The pass over the sources.

    Attributes:
        journal: takes texts, keys and signatures of what is kept, and a line for what is removed.
    """

    journal: Journal
    sources: tuple[SourceFiles, ...]
    config: PrepareConfig
    examine: Examine

    @cached_property
    def _counts(self) -> list[Counter[str]]:
        """Of each source how many documents and bytes were read and kept, and removed for which reason."""
        stored = self.journal.position.get("counts")
        return counters(stored, len(self.sources))

    def run(self, told: Told) -> None:
        """Read all that was not read before; the journal's position is then that of the next pass."""
        ahead: deque[_Place] = deque()
        """Of documents that were read and are not yet examined."""
        at = 0, 0
        for examined in self.examine(self._texts(ahead)):
            place = ahead.popleft()
            self._document(place, examined)
            if self.journal.is_full:
                done = {"source": place.source, "file": place.file, "record": place.record + 1}
                self.journal.commit({"pass": "read", **done, "counts": self._counts})
            elif (place.source, place.file) == at and place.record % TOLD_EVERY:
                continue
            at = place.source, place.file
            told(place.read_bytes)
        told(sum(size for source in self.sources for _, _, size in source.files))
        self.journal.commit({"pass": "duplicates", "band": 0, "counts": self._counts})

    def _texts(self, ahead: deque[_Place]) -> Iterator[str]:
        """Yield all texts that were not read before, and append to `ahead` where each is."""
        position = self.journal.position
        at = (position.get("source", 0), position.get("file", 0))
        before = 0
        for number, source in enumerate(self.sources):
            for file_number, (name, path, size) in enumerate(source.files):
                if (number, file_number) >= at:
                    skipped = position.get("record", 0) if (number, file_number) == at else 0
                    read = 0
                    for record, (where, document) in enumerate(
                        stream_documents(path, PlainTexts(self.config.text_column))
                    ):
                        read += len(document.text)
                        if record < skipped:
                            continue
                        _refuse_instructions(document, where)
                        place = (name + where.removeprefix(str(path))).encode()
                        ahead.append(_Place(number, file_number, record, place, before + min(read, size)))
                        yield document.text
                before += size

    def _document(self, place: _Place, examined: Examined) -> None:
        counts, found = self._counts[place.source], examined.found
        counts["read"] += 1
        counts["bytes read"] += examined.read_bytes
        if isinstance(found, Removal):
            counts[found.reason] += 1
            source = self.sources[place.source].name
            self.journal.append(REMOVED, removed_line(source, place.name.decode(), found))
            return
        counts["examined"] += 1
        self._keep(place, examined.text, found)

    def _keep(self, place: _Place, text: bytes, found: Hashed) -> None:
        journal, name = self.journal, place.name[-1000:]
        entry = np.array([(journal.length(TEXTS), len(text), len(name), place.source)], ENTRY)
        journal.append(INDEX, entry.tobytes())
        journal.append(TEXTS, name + text)
        if self.config.duplicates.exact:
            journal.append(EXACT_KEYS, found.digest[:8])
            journal.append(DIGESTS, found.digest)
        journal.append(SIGNATURES, found.signature)
        for band in range(len(found.keys) // 8):
            journal.append(near_keys(band), found.keys[8 * band : 8 * band + 8])


def _refuse_instructions(document: Document, where: str) -> None:
    if len(document.spans) > 1:
        raise InputError(
            "the record is instruction data, and a corpus is made of texts",
            where=where,
            remedy="Leave such files out: the data of a recipe takes them as they are.",
        )


def counters(stored: Sequence[Mapping[str, int]] | None, sources: int) -> list[Counter[str]]:
    """Return the counts of each source as they were stored; none where nothing was."""
    return [Counter(each) for each in stored] if stored else [Counter() for _ in range(sources)]


def removed_line(source: str, place: str, why: Removal, **more: Json) -> bytes:
    """Return the line that says of a document why it was removed."""
    value = {} if why.value is None else {"value": round(why.value, 4)}
    line = {"source": source, "place": place, "reason": why.reason, **value, **more}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
