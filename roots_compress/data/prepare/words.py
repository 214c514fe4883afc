"""Words of a text as numbers: hashes of words, and of the runs of words that a text holds."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

PUNCTUATION = re.compile(r"[^\w\s]+")
MOST_KNOWN, LONGEST_KNOWN = 1 << 15, 64
"""Words whose hashes are kept, and the characters of the longest of them: some megabytes."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def plain_words(text: str) -> list[str]:
    """Return the words of a text in small letters and without punctuation, as duplicates are looked for.

    Texts of the same characters have the same words, whatever their normalisation form.
    """
    return PUNCTUATION.sub(_marks, unicodedata.normalize("NFC", text.lower())).split()


def _marks(found: re.Match[str]) -> str:
    """Return what of some punctuation is a part of the word before it: vowel signs of Hindi and the like."""
    signs, begin = found[0], found.start()
    if signs.isascii() or begin == 0 or found.string[begin - 1].isspace():
        return ""
    return "".join(takewhile(lambda sign: unicodedata.category(sign)[0] == "M", signs))


class WordHashes(dict[str, int]):
    """The hash of each word. Frequent words are hashed once, and the memory that this takes is bounded."""

    def __missing__(self, word: str) -> int:
        """Hash a word that is not known."""
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        if len(word) <= LONGEST_KNOWN:
            if len(self) >= MOST_KNOWN:
                self.clear()
            self[word] = value
        return value

    def of(self, words: Sequence[str]) -> Hashes:
        """Return the hash of each word, `[words]`."""
        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))


def runs(word_hashes: Hashes, length: int) -> Hashes:
    """Return a hash of each run of `length` words; of a shorter text, one of all its words."""
    count = min(length, len(word_hashes))
    if count == 0:
        return word_hashes
    return mixed(next(found for size, found in growing_runs(word_hashes, count) if size == count))


def growing_runs(word_hashes: Hashes, longest: int) -> Iterator[tuple[int, Hashes]]:
    """Yield 1 to `longest`, and of each so many words' runs the polynomial hash, not yet mixed."""
    found = word_hashes
    for length in range(1, min(longest, len(word_hashes)) + 1):
        if length > 1:
            found = found[:-1] * FACTOR + word_hashes[length - 1 :]
        yield length, found


def mixed(values: Hashes) -> Hashes:
    """Return values whose every bit depends on all bits of the given one (splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def drawn(seed: int, numbers: Hashes, stream: int) -> Hashes:
    """Return a random 64-bit value for each number: the same for the same seed, number and stream."""
    start = mixed(np.array([seed, stream], np.uint64) + FACTOR)
    return mixed(mixed(numbers * FACTOR + start[0]) + start[1])
