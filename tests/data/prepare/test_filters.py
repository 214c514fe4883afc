"""Each bound of the filters: a text that breaks it alone."""

from __future__ import annotations

import numpy as np
import pytest

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.prepare.examiner import Examiner
from roots_compress.data.prepare.filters import Removal
from tests.data.prepare.texts import prose

PARTS = [prose(seed, 12) for seed in range(20)]
FAULTS = {
    "length.min_words": prose(0, 49),
    "length.max_words": prose(0, 1001),
    "length.max_characters": prose(0, 900) * 20,
    "length.min_word_characters": "a bc " * 40,
    "length.max_word_characters": "incomprehensibilities " * 60,
    "symbols.max_symbols": prose(0, 100) + " #" * 12,
    "symbols.max_bullet_lines": "\n".join(f"- {part}" for part in PARTS),
    "symbols.max_ellipsis_lines": "\n".join(
        part + ("..." if number < 7 else "") for number, part in enumerate(PARTS)
    ),
    "symbols.min_alphabetic_words": " ".join(prose(0, 70).split() + ["12345"] * 30),
    "symbols.min_stop_words": prose(0),
    "repetition.max_paragraphs": "\n\n".join([*PARTS[:6], *["so it goes"] * 5]),
    "repetition.max_paragraph_characters": "\n\n".join([*PARTS[:8], *PARTS[:3]]),
    "repetition.max_lines": "\n".join([*PARTS[:6], *["so it goes"] * 5]),
    "repetition.max_line_characters": "\n".join([*PARTS[:8], *PARTS[:3]]),
    "repetition.max_top_ngrams": " ".join(f"{part} once more" for part in prose(5, 80).split(" ")),
    "repetition.max_ngrams": " ".join([*PARTS[:8], *PARTS[:3]]),
}


def examiner(**settings: object) -> Examiner:
    config = PrepareConfig.model_validate({"sources": [{"path": "x"}], **settings})
    return Examiner(config, np.zeros(0, np.uint64))


@pytest.mark.parametrize("reason", FAULTS)
def test_a_text_is_removed_by_the_bound_that_it_breaks(reason: str) -> None:
    stop = {"symbols": {"min_stop_words": 2}} if reason.endswith("stop_words") else {}
    found = examiner(length={"max_words": 1000, "max_characters": 50_000}, **stop).fault(FAULTS[reason])
    assert isinstance(found, Removal)
    assert found.reason == reason


def test_a_repeated_run_counts_with_all_of_its_words() -> None:
    words = [f"word{first}{second}" for first in "abcdef" for second in "abcdefghij"]
    bounds = {"max_top_ngrams": (1, 1, 1), "max_ngrams": (0.4, 1, 1, 1, 1, 1)}
    found = examiner(repetition=bounds).fault(" ".join(words * 2))
    assert found == Removal("repetition.max_ngrams", 0.5)


def test_characters_of_runs_that_overlap_count_once() -> None:
    no_bounds = {"max_top_ngrams": (1, 1, 1), "max_ngrams": (1,) * 6, "max_lines": 1, "max_paragraphs": 1}
    lengths = {"min_word_characters": 0}
    assert isinstance(examiner(repetition=no_bounds, length=lengths).fault("ha " * 100), np.ndarray)
    bounds = no_bounds | {"max_top_ngrams": (0.5, 1, 1)}
    text = "ha " * 60 + " ".join(f"{first}{second}" for first in "bcdefghij" for second in "aeiou")
    found = examiner(repetition=bounds, length=lengths).fault(text)
    assert found == Removal("repetition.max_top_ngrams", 120 / 210)


def test_prose_is_kept() -> None:
    assert isinstance(examiner().fault("\n\n".join(PARTS)), np.ndarray)
