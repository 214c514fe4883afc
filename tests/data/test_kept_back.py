"""What is kept back from a training, so that it can be judged."""

from __future__ import annotations

import pytest

from roots_compress.data.documents import Document
from roots_compress.data.kept_back import keep_back

MANY = tuple(Document.plain(f"document {number:03}") for number in range(100))
"""Of 12 characters each."""


@pytest.mark.parametrize(("characters", "kept"), [(10_000, 10), (30, 3), (1, 1)])
def test_no_more_documents_are_kept_back_than_are_needed(characters: int, kept: int) -> None:
    parts = keep_back(MANY, 0.1, characters=characters, seed=0)
    assert parts is not None
    learnt, held = parts
    assert len(held) == kept
    assert set(learnt) | set(held) == set(MANY)
    assert len(learnt) + len(held) == len(MANY)
    assert list(learnt) == sorted(learnt, key=lambda each: each.text)


def test_which_documents_are_kept_back_follows_from_the_seed() -> None:
    first, again, other = (keep_back(MANY, 0.1, characters=999, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("others", [0, 3])
def test_of_a_few_texts_the_end_of_the_longest_is_kept_back(others: int) -> None:
    text = " ".join(f"word{number}" for number in range(200))
    documents = (*MANY[:others], Document.plain(text))
    parts = keep_back(documents, 0.1, characters=999, seed=0)
    assert parts is not None
    learnt, (end,) = parts
    assert learnt[:-1] == MANY[:others]
    assert f"{learnt[-1].text} {end.text}" == text
    assert len(end.text) == pytest.approx(0.1 * len(text), rel=0.2)


@pytest.mark.parametrize(
    "document", [Document.plain("one"), Document(Document.plain("a b " * 99).spans, label=1)]
)
def test_what_cannot_be_cut_is_not_kept_back(document: Document) -> None:
    assert keep_back((document,) * 3, 0.1, characters=999, seed=0) is None
