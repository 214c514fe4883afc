"""Fingerprints: the same for the same text, and for nothing else."""

from __future__ import annotations

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


def test_the_first_of_repeated_documents_is_kept() -> None:
    first, other = Document.plain("a b"), Document.plain("c")
    assert without_repeats([first, other, Document.plain("a  b")]) == (first, other)
