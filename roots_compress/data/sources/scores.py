"""Records of a text, or of two that are read together, and the score that is right for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from roots_compress.data.documents import FIRST, SECOND, Document, Span
from roots_compress.data.sources.records import (
    REPEATED,
    FieldRecords,
    NamedNumber,
    Record,
    RecordError,
    is_blank,
    value_of,
)

SCORE = "score"
KNOWN = {
    FIRST: ("sentence1", "text1", "query", "question", "premise", "sentence", "text"),
    SECOND: ("sentence2", "text2", "passage", "document", "answer", "hypothesis"),
    SCORE: ("score", "label", "similarity_score", "relevance"),
}


@dataclass(frozen=True)
class Scores(FieldRecords):
    """A `first` text, a `second` where there is one, and a number `score` where there is one."""

    texts_of_files: ClassVar[str | None] = "holds no pairs of texts"

    @property
    def needed(self) -> str:
        """The first text; the others may be left out."""
        return "a 'sentence1', and where there are such a 'sentence2' and a 'score'"

    def document(self, record: Record, where: str) -> Document:
        """Return the texts, none of them blank, and the score.

        Raises:
            RecordError: a text is missing or blank, or the score is no number.
        """
        first = self.fields.require(record, FIRST)
        second = self.fields.find(record, SECOND, (first,))
        scored = self.fields.find(record, SCORE, (first, second))
        spans = [Span(self.fields.text(record, FIRST, first), True, FIRST)]
        if second is not None:
            spans.append(Span(self.fields.text(record, SECOND, second), True, SECOND))
        value = None if scored is None else value_of(record, scored)
        return Document(tuple(spans), score=None if is_blank(value) else _number(value, scored))


@dataclass(frozen=True)
class Ratings(Scores):
    """The same, each with its number: what is right is to be learnt, or judged by."""

    @property
    def needed(self) -> str:
        """The first text and the number."""
        return "a 'sentence1', a 'score', and where there is one a 'sentence2'"

    def document(self, record: Record, where: str) -> Document:
        """Return the texts and the score.

        Raises:
            RecordError: as of scores, or there is no score.
        """
        found = super().document(record, where)
        if found.score is None:
            raise RecordError(
                "there is no score",
                "Give each record a number, or take it out; --field score=COLUMN names it.",
            )
        return found


def _number(value: Any, column: str | None) -> float:
    """Return a score. Where a file gives all numbers the names of numbers, such as 1 to 5, it is the name.

    Raises:
        RecordError: it is no finite number, or one without a name in a file that gives them.
    """
    if isinstance(value, NamedNumber):
        if not 0 <= value < len(value.names):
            raise RecordError(
                f"'{column}' is {value}, to which its file gives no name",
                "Give the record a score, or take it out.",
            )
        if all(map(_is_number, value.names)):
            value = value.names[value]
    try:
        number = math.nan if value is REPEATED or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RecordError(
            f"'{column}' is {value!r:.60}, which is no number", "Give the record a number, or take it out."
        )
    return number


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
