"""Filters on single documents: length, symbols, repetition (Rae et al. 2021, Gopher), language."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roots_compress.configs.prepare import LanguageConfig, LengthConfig, RepetitionConfig, SymbolsConfig
from roots_compress.data.prepare.words import Hashes, growing_runs
from roots_compress.errors import InputError, recipe_key

BULLETS = ("-", "*", "\N{BULLET}", "\N{TRIANGULAR BULLET}", "\N{HYPHEN BULLET}", "\N{MIDDLE DOT}")
ELLIPSES = ("...", "\N{HORIZONTAL ELLIPSIS}")
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
MOST_TIES = 16
"""Runs of words that are the most frequent together, of which the share of characters is computed."""
MOST_CHARACTERS = 4000
"""Of a text whose language is asked."""


class Removal(NamedTuple):
    """Why a document is removed: the key of the bound that it breaks, and its value."""

    reason: str
    value: float | None


def length_fault(words: Sequence[str], bounds: LengthConfig) -> Removal | None:
    """Return which bound on length a document breaks; `words` are separated by spaces."""
    count = len(words)
    if count < bounds.min_words:
        return Removal("length.min_words", count)
    if count > bounds.max_words:
        return Removal("length.max_words", count)
    mean = sum(map(len, words)) / max(count, 1)
    if mean < bounds.min_word_characters:
        return Removal("length.min_word_characters", mean)
    if mean > bounds.max_word_characters:
        return Removal("length.max_word_characters", mean)
    return None


def symbols_fault(text: str, words: Sequence[str], bounds: SymbolsConfig) -> Removal | None:
    """Return which bound on symbols a document breaks."""
    count = max(len(words), 1)
    for symbols in (text.count("#"), sum(text.count(mark) for mark in ELLIPSES)):
        if symbols / count > bounds.max_symbols:
            return Removal("symbols.max_symbols", symbols / count)
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    bullets = sum(line.startswith(BULLETS) for line in lines) / max(len(lines), 1)
    if bullets > bounds.max_bullet_lines:
        return Removal("symbols.max_bullet_lines", bullets)
    open_ends = sum(line.endswith(ELLIPSES) for line in lines) / max(len(lines), 1)
    if open_ends > bounds.max_ellipsis_lines:
        return Removal("symbols.max_ellipsis_lines", open_ends)
    alphabetic = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words) / count
    if alphabetic < bounds.min_alphabetic_words:
        return Removal("symbols.min_alphabetic_words", alphabetic)
    if bounds.min_stop_words:
        found = sum(word.lower() in STOP_WORDS for word in words)
        if found < bounds.min_stop_words:
            return Removal("symbols.min_stop_words", found)
    return None


def repetition_fault(
    text: str, words: Sequence[str], word_hashes: Hashes, bounds: RepetitionConfig
) -> Removal | None:
    """Return which bound on repetition a document breaks; `words` are plain, as duplicates are looked for."""
    for unit, separator in (("paragraph", "\n\n"), ("line", "\n")):
        parts = [part for part in map(str.strip, text.split(separator)) if part]
        share, characters = _repeated_parts(parts)
        for key, value in ((f"max_{unit}s", share), (f"max_{unit}_characters", characters)):
            if value > getattr(bounds, key):
                return Removal(f"repetition.{key}", value)
    widths = np.fromiter(map(len, words), np.int64, len(words))
    for key, value, bound in _repeated_runs(word_hashes, widths, bounds):
        if value > bound:
            return Removal(f"repetition.{key}", value)
    return None


def _repeated_parts(parts: Sequence[str]) -> tuple[float, float]:
    """Return the share of repeated parts, and that of their characters."""
    seen: set[str] = set()
    repeated = characters = total = 0
    for part in parts:
        total += len(part)
        if part in seen:
            repeated += 1
            characters += len(part)
        seen.add(part)
    return repeated / max(len(parts), 1), characters / max(total, 1)


def _repeated_runs(
    word_hashes: Hashes, widths: NDArray[np.int64], bounds: RepetitionConfig
) -> Iterator[tuple[str, float, float]]:
    """Yield key, share of characters and bound: of the most frequent runs, and of runs that came before."""
    for length, found in growing_runs(word_hashes, 10):
        if length == 1:
            continue
        values, first, counts = np.unique(found, return_index=True, return_counts=True)
        if len(first) == len(found):  # No run of this length is repeated, so no longer one is.
            return
        if length <= 4:
            most = values[counts == counts.max()][:MOST_TIES]
            share = max(_share(found == run, length, widths) for run in most)
            yield "max_top_ngrams", share, bounds.max_top_ngrams[length - 2]
        else:
            later = np.ones(len(found), np.bool_)
            later[first] = False
            yield "max_ngrams", _share(later, length, widths), bounds.max_ngrams[length - 5]


def _share(begins: NDArray[np.bool_], length: int, widths: NDArray[np.int64]) -> float:
    """Return the share of characters in runs of `length` words, of which some begin at each marked word."""
    change = np.zeros(len(widths) + 1, np.int64)
    places = np.flatnonzero(begins)
    change[places] += 1
    change[places + length] -= 1
    covered = np.cumsum(change[:-1]) > 0
    return int(widths[covered].sum()) / max(int(widths.sum()), 1)


class Languages:
    """The languages that are kept; py3langid tells them, where it is installed.

    Raises:
        InputError: py3langid is not installed, or does not know one of them.
    """

    def __init__(self, config: LanguageConfig) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise InputError(
                "languages are identified by py3langid, which is not installed",
                where=recipe_key("language", "keep"),
                remedy="Install it: pip install 'roots-compress[languages]'. Or keep all languages.",
            ) from None
        self._config = config
        self._identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        for language in config.keep:
            if language not in self._identifier.labels:
                raise InputError(
                    f"py3langid knows no language '{language}'",
                    where=recipe_key("language", "keep"),
                    remedy=f"Name some of: {', '.join(sorted(self._identifier.labels))}.",
                )

    def fault(self, text: str) -> Removal | None:
        """Return why a text is removed: the probability that it is in one of the languages is too small."""
        found = dict(self._identifier.rank(text[:MOST_CHARACTERS]))
        probability = float(sum(found[language] for language in self._config.keep))
        if probability < self._config.min_probability:
            return Removal("language.keep", probability)
        return None
