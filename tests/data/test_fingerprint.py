"""Fingerprints: the same for the same text, and for nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from roots_compress.data import fingerprint
from roots_compress.data.documents import Document, Span
from roots_compress.data.fingerprint import content_key, text_sha256, without_repeats


def test_text_order_boundaries_and_scoring_change_the_fingerprint() -> None:
    ab, ba = Document.plain("ab"), Document.plain("ba")
    variants = [
        [ab, ba],
        [ba, ab],
        [Document.plain("abba")],
        [Document((Span("ab", True), Span("ba", True)))],
        [Document((Span("ab", False),)), ba],
    ]
    assert len({text_sha256(documents) for documents in variants}) == len(variants)


def test_the_same_text_has_the_same_fingerprint() -> None:
    assert text_sha256([Document.plain("ü")]) == text_sha256(iter([Document.plain("ü")]))


def test_space_alone_does_not_make_another_content() -> None:
    assert content_key(Document.plain("a b\n")) == content_key(Document.plain(" a\n\nb"))
    assert content_key(Document.plain("a b")) != content_key(Document.plain("ab"))


def test_words_that_another_text_of_a_document_says_make_another_content() -> None:
    def pair(source: str, target: str) -> Document:
        return Document((Span(source, False, "source"), Span(target, True, "target")))

    assert content_key(pair("New York", "city")) != content_key(pair("New", "York city"))
    assert content_key(pair("New  York", " city")) == content_key(pair("New York\n", "city"))


def test_the_first_of_repeated_documents_is_kept() -> None:
    first, other = Document.plain("a b"), Document.plain("c")
    assert without_repeats([first, other, Document.plain("a  b")]) == (first, other)


def test_a_content_with_several_scores_has_their_mean() -> None:
    def scored(text: str, *scores: float | None) -> list[Document]:
        return [replace(Document.plain(text), score=score) for score in scores]

    read = [*scored("a", None, 3.0, 4.0, None), *scored("b", 0.1, 0.1, 0.1), *scored("c", None, None)]
    assert [document.score for document in without_repeats(read)] == [3.5, 0.1, None]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "text", ["", " ", "a", " a  b\n\nc ", "aa bb\u3000cc", "a" * 9, "ab " * 9, "  \n  x"]
)
def test_a_content_does_not_depend_on_how_it_is_read(
    monkeypatch: pytest.MonkeyPatch, text: str, chunk: int
) -> None:
    monkeypatch.setattr(fingerprint, "CHUNK_CHARACTERS", chunk)
    right = hashlib.sha256(" ".join(text.split()).encode()).digest()
    assert content_key(Document.plain(text)) == right
