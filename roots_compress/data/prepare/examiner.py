"""The result for one document, independent of others: why it is removed, or its hashes.

Documents are examined in several processes, in batches and in their order.
"""

from __future__ import annotations

import multiprocessing
import signal
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.documents import Document
from roots_compress.data.fingerprint import content_key
from roots_compress.data.prepare.filters import (
    Languages,
    Removal,
    length_fault,
    repetition_fault,
    symbols_fault,
)
from roots_compress.data.prepare.minhash import MinHash
from roots_compress.data.prepare.words import Hashes, WordHashes, plain_words, runs
from roots_compress.errors import StageError
from roots_compress.system.background import end_with_parent, starting_processes

BATCH_CHARACTERS = 1 << 18
"""Of the texts that are sent to a process at a time."""
WAITING = 4
"""Batches for each process that are sent before the oldest is back: memory is bounded by them."""


class Hashed(NamedTuple):
    """The hashes for finding duplicates of a text."""

    digest: bytes
    """The sha256 of its words."""
    signature: bytes
    """Its MinHash values, 4 bytes each; empty where near duplicates stay."""
    keys: bytes
    """The hash of each band of these, 8 bytes each."""


class Examined(NamedTuple):
    """The result for a text."""

    text: bytes
    """The text to be written; empty if it is removed."""
    read_bytes: int
    """Of the text as it was read."""
    found: Removal | Hashed


class Examiner:
    """Decides whether a text is removed, and computes its hashes for duplicates.

    Args:
        held_out: the hashes of the held-out texts' runs of words, in order.
    """

    def __init__(self, config: PrepareConfig, held_out: Hashes) -> None:
        self.config, self._held_out = config, held_out
        self._word_hashes = WordHashes()
        self._languages = Languages(config.language) if config.language.keep else None
        self.minhash = MinHash(config.duplicates.hashes, config.duplicates.threshold)

    def examined(self, texts: Sequence[str]) -> list[Examined]:
        """Examine texts."""
        return list(map(self._examined, texts))

    def _examined(self, text: str) -> Examined:
        read_bytes = len(text.encode())
        if self.config.normalise:
            text = unicodedata.normalize("NFC", text)
        found = self.fault(text)
        if isinstance(found, Removal):
            return Examined(b"", read_bytes, found)
        return Examined(text.encode(), read_bytes, self._hashed(text, found))

    def fault(self, text: str) -> Removal | Hashes:
        """Return why a text is removed, independent of other documents, or the hashes of its words."""
        config = self.config
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

    def _hashed(self, text: str, word_hashes: Hashes) -> Hashed:
        digest = content_key(Document.plain(text))
        if not self.config.duplicates.near:
            return Hashed(digest, b"", b"")
        found = runs(word_hashes, self.config.duplicates.ngram)
        # A text of signs alone has no words; nothing but itself is like it.
        signature = self.minhash.signature(found if len(found) else np.frombuffer(digest, "<u8"))
        keys = self.minhash.keys(signature)
        return Hashed(digest, signature.astype("<u4").tobytes(), keys.astype("<u8").tobytes())


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


Examine = Callable[[Iterable[str]], Iterator[Examined]]
"""Examines texts in order; it reads some batches ahead."""


@contextmanager
def examining(examiner: Examiner, held_out: Hashes, processes: int) -> Iterator[Examine]:
    """Give a function that examines texts in `processes` processes; with one, in this one.

    Raises:
        StageError: in the body: a process was killed.
    """
    if processes == 1:
        yield lambda texts: (each for text in texts for each in examiner.examined([text]))
        return
    # Not forked: the libraries of this process may have threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin, (examiner.config, held_out))

    def examine(texts: Iterable[str]) -> Iterator[Examined]:
        waiting: deque[Future[list[Examined]]] = deque()
        for batch in _batches(texts):
            with starting_processes():
                waiting.append(pool.submit(_examine, batch))
            if len(waiting) > WAITING * processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    try:
        yield examine
    except BrokenProcessPool:
        raise StageError(
            "a process that examines documents was killed, perhaps for want of memory",
            remedy="Give the same command again with fewer --processes: it goes on where it stopped.",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


_own: list[Examiner] = []
"""The one examiner of a process of the pool."""


def _begin(config: PrepareConfig, held_out: Hashes) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()  # Otherwise the pool would wait forever.
    _own.append(Examiner(config, held_out))


def _examine(batch: list[str]) -> list[Examined]:
    return _own[0].examined(batch)
