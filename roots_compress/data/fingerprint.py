"""Fingerprints of text: for the text that was read, and for equal documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from roots_compress.data.documents import Document
from roots_compress.data.streamed import StreamedDocuments

CHUNK_CHARACTERS = 1 << 20
SEPARATOR = " \0 "
"""Between the named texts of a document; files with zero bytes are no text."""


def text_sha256(documents: Iterable[Document]) -> str:
    """Return the sha256 of documents in their order, with boundaries, labels, names and what is scored.

    Those that are streamed know their own, by the hashes of their shards.
    """
    if isinstance(documents, StreamedDocuments):
        return documents.sha256
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"document {len(document.spans)}\n".encode())
        for span in document.spans:
            encoded = span.text.encode()
            name = f" {span.name}" if span.name else ""
            digest.update(f"{len(encoded)} {span.scored:d}{name}\n".encode())
            digest.update(encoded)
        if document.format is not None:
            digest.update(f"format {document.format.template}\n".encode())
        if document.label is not None:
            digest.update(f"label {document.label}\n".encode())
        if document.score is not None:
            digest.update(f"score {document.score!r}\n".encode())
        if document.tags is not None:
            digest.update(f"tags {document.tags.numbers}\n".encode())
    return digest.hexdigest()


def content_key(document: Document) -> bytes:
    """Return a key that documents with equal words share, whatever the space between words.

    Of named texts, such as a source and its target, each has its own words.
    """
    digest, text = hashlib.sha256(), document.text
    if document.spans[0].name:
        text = SEPARATOR.join(span.text for span in document.spans)
    parted = False  # Whether there is space between the words so far and those to come.
    begun = False
    for start in range(0, len(text), CHUNK_CHARACTERS):
        # In chunks: the words of a long text take many times its bytes.
        chunk = text[start : start + CHUNK_CHARACTERS]
        words = chunk.split()
        if words:
            if begun and (parted or chunk[0].isspace()):
                digest.update(b" ")
            digest.update(" ".join(words).encode())
            begun = True
        parted = chunk[-1].isspace()
    return digest.digest()


def without_repeats(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Return the documents in their order, each content once; of several scores it has the mean."""
    first: dict[bytes, Document] = {}
    scores: dict[bytes, list[float]] = {}
    for document in documents:
        key = content_key(document)
        first.setdefault(key, document)
        if document.score is not None:
            scores.setdefault(key, []).append(document.score)
    return tuple(_scored(document, scores.get(key, [])) for key, document in first.items())


def _scored(document: Document, scores: Sequence[float]) -> Document:
    """Return a document with the mean of scores; as it is where they are its own."""
    own = all(score == document.score for score in scores)
    return document if own else replace(document, score=fmean(scores))
