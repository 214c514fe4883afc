"""Pairs made of plain text: a sentence without capitals and punctuation, and the original sentence."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from roots_compress.data import builtin
from roots_compress.data.documents import SOURCE, TARGET, Document, Span
from roots_compress.data.fingerprint import without_repeats

DESCRIPTION = f"sentences, bare and as they are, of {builtin.DESCRIPTION}"
SENTENCE = re.compile(r"[A-Z][^\n]*[.!?]")
LEFT_OUT = re.compile(r"[^\w\s]+")
SHORTEST, LONGEST = 4, 32
"""Words of a sentence."""


@functools.cache
def builtin_pairs() -> tuple[Document, ...]:
    """Return the pairs of the built-in corpus."""
    return restoration_pairs(builtin.builtin_documents())


def restoration_pairs(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Return a pair for each sentence of prose, in the order of the text, none twice."""
    return without_repeats(_pair(each) for document in documents for each in _sentences(document.text))


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        joined = " ".join(paragraph.split())
        for sentence in builtin.SENTENCE_END.split(joined):
            if SENTENCE.fullmatch(sentence) and SHORTEST <= len(sentence.split()) <= LONGEST:
                yield sentence


def _pair(sentence: str) -> Document:
    bare = " ".join(LEFT_OUT.sub(" ", sentence.lower()).split())
    return Document((Span(bare, False, SOURCE), Span(sentence, True, TARGET)))
