"""The pass over the sources: each document is read, examined, and kept with what finds its duplicates."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.documents import Document
from roots_compress.data.fingerprint import content_key
from roots_compress.data.prepare.filters import Removal, length_fault, repetition_fault, symbols_fault
from roots_compress.data.prepare.journal import Journal
from roots_compress.data.prepare.language import Languages
from roots_compress.data.prepare.minhash import MinHash
from roots_compress.data.prepare.words import Hashes, WordHashes, plain_words, runs
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


class Examiner:
    """Says of a text why it is removed, and what its duplicates are found by.

    Args:
        config: the bounds.
        held_out: the hashes of the held-out texts' runs of words, in order.
    """

    def __init__(self, config: PrepareConfig, held_out: Hashes) -> None:
        self._config, self._held_out = config, held_out
        self._word_hashes = WordHashes()
        self._languages = Languages(config.language) if config.language.keep else None
        self.minhash = MinHash(config.duplicates.hashes, config.duplicates.threshold)

    def examined(self, text: str) -> Removal | Hashes:
        """Return why a text is removed, whatever other documents there are, or the hashes of its words."""
        config = self._config
        if len(text) > config.length.max_characters:
            return Removal("length.max_characters", len(text))
        words = text.split()
        if found := length_fault(words, config.length) or symbols_fault(text, words, config.symbols):
            return found
        plain = plain_words(text)
        word_hashes = self._word_hashes.of(plain)
        if found := repetition_fault(text, plain, word_hashes, config.repetition):
            return found
        if self._languages and (found := self._languages.fault(text)):
            return found
        if len(self._held_out):
            shared = int(np.isin(runs(word_hashes, config.decontamination.ngram), self._held_out).sum())
            if shared:
                return Removal("decontamination.held_out", shared)
        return word_hashes


def held_out_runs(texts: Iterator[str], length: int) -> tuple[Hashes, int]:
    """Return the hashes of all runs of `length` words, in order, and how many texts are too short for one."""
    word_hashes, short = WordHashes(), 0
    found: list[Hashes] = []
    for text in texts:
        words = plain_words(text)
        if len(words) < length:
            short += 1
        else:
            found.append(np.unique(runs(word_hashes.of(words), length)))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64), short


@dataclass
class Reading:
    """The pass over the sources.

    Attributes:
        journal: takes texts, keys and signatures of what is kept, and a line for what is removed.
        sources: in the order in which they are read.
        config: the settings.
        examiner: says what is removed.
    """

    journal: Journal
    sources: tuple[SourceFiles, ...]
    config: PrepareConfig
    examiner: Examiner

    @cached_property
    def _counts(self) -> list[Counter[str]]:
        """Of each source how many documents and bytes were read and kept, and removed for which reason."""
        stored = self.journal.position.get("counts")
        return counters(stored, len(self.sources))

    def run(self, told: Told) -> None:
        """Read all that was not read before; the journal's position is then that of the next pass."""
        position = self.journal.position
        at = (position.get("source", 0), position.get("file", 0))
        before = 0
        for number, source in enumerate(self.sources):
            for file_number, (name, path, size) in enumerate(source.files):
                if (number, file_number) >= at:
                    skipped = position.get("record", 0) if (number, file_number) == at else 0
                    self._file((number, file_number), name, path, skipped, partial(_told, told, before, size))
                before += size
                told(before)
        self.journal.commit({"pass": "duplicates", "band": 0, "counts": self._counts})

    def _file(self, at: tuple[int, int], name: str, path: Path, skipped: int, told: Told) -> None:
        """Read a file's documents from one on; `at` says which file it is."""
        read, (source, file) = 0, at
        for record, (where, document) in enumerate(
            stream_documents(path, PlainTexts(self.config.text_column))
        ):
            read += len(document.text)
            if record < skipped:
                continue
            self._document(source, name + where.removeprefix(str(path)), document, where)
            if self.journal.is_full:
                place = {"source": source, "file": file, "record": record + 1}
                self.journal.commit({"pass": "read", **place, "counts": self._counts})
                told(read)

    def _document(self, source: int, place: str, document: Document, where: str) -> None:
        if len(document.spans) > 1:
            raise InputError(
                "the record is instruction data, and a corpus is made of texts",
                where=where,
                remedy="Leave such files out: the data of a recipe takes them as they are.",
            )
        text = document.text
        counts = self._counts[source]
        size = len(text.encode())
        counts["read"] += 1
        counts["bytes read"] += size
        if self.config.normalise:
            text = unicodedata.normalize("NFC", text)
        found = self.examiner.examined(text)
        if isinstance(found, Removal):
            counts[found.reason] += 1
            self.journal.append(REMOVED, removed_line(self.sources[source].name, place, found))
            return
        counts["examined"] += 1
        self._keep(source, place.encode(), text, found)

    def _keep(self, source: int, place: bytes, text: str, word_hashes: Hashes) -> None:
        journal, encoded = self.journal, text.encode()
        place = place[-1000:]
        entry = np.array([(journal.length(TEXTS), len(encoded), len(place), source)], ENTRY)
        journal.append(INDEX, entry.tobytes())
        journal.append(TEXTS, place + encoded)
        digest = content_key(Document.plain(text))
        if self.config.duplicates.exact:
            journal.append(EXACT_KEYS, digest[:8])
            journal.append(DIGESTS, digest)
        if self.config.duplicates.near:
            found = runs(word_hashes, self.config.duplicates.ngram)
            minhash = self.examiner.minhash
            # A text of signs alone has no words; nothing but itself is like it.
            signature = minhash.signature(found if len(found) else np.frombuffer(digest, "<u8"))
            journal.append(SIGNATURES, signature.astype("<u4").tobytes())
            for band, key in enumerate(minhash.keys(signature).tolist()):
                journal.append(near_keys(band), key.to_bytes(8, "little"))


def counters(stored: Sequence[Mapping[str, int]] | None, sources: int) -> list[Counter[str]]:
    """Return the counts of each source as they were stored; none where nothing was."""
    return [Counter(each) for each in stored] if stored else [Counter() for _ in range(sources)]


def _told(told: Told, before: int, size: int, done: int) -> None:
    """Tell of bytes read in a file of some size, after those before it."""
    told(before + min(done, size))


def removed_line(source: str, place: str, why: Removal, **more: Json) -> bytes:
    """Return the line that says of a document why it was removed."""
    value = {} if why.value is None else {"value": round(why.value, 4)}
    line = {"source": source, "place": place, "reason": why.reason, **value, **more}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
