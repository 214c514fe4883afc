"""Records of words, each with a label: named entities, parts of speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from roots_compress.data.documents import Document, Span, Tags
from roots_compress.data.sources.labels import Labels
from roots_compress.data.sources.records import FieldRecords, Record, RecordError, text_of, value_of

WORDS, TAGS = "words", "tags"
KNOWN = {WORDS: ("tokens", "words"), TAGS: ("ner_tags", "tags", "labels", "pos_tags")}


@dataclass(frozen=True)
class TaggedWords(FieldRecords):
    """A list of words, and as many labels of those that a model knows."""

    texts_of_files: ClassVar[str | None] = "holds no labels of words"
    names: tuple[str, ...]
    """Of the labels, by their numbers."""

    @property
    def needed(self) -> str:
        """Both lists."""
        return "a list of 'tokens' and a list of 'ner_tags'"

    def document(self, record: Record, where: str) -> Document | None:
        """Return the words with a space between them, and their labels; None where there are none.

        Raises:
            RecordError: a list is missing or no list, they differ in length, or an entry is no word or label.
        """
        column = self.fields.require(record, WORDS)
        of_tags = self.fields.require(record, TAGS, (column,))
        words, tags = (_list(value_of(record, each), each) for each in (column, of_tags))
        if len(words) != len(tags):
            raise RecordError(
                f"'{column}' has {len(words)} entries, and '{of_tags}' {len(tags)}",
                "Give each word a label.",
            )
        labels = Labels("", of_tags, self.names)
        spans: list[Span] = []
        for word in words:
            text = text_of(word, column, "Give a list of words.")
            if not text.strip():
                raise RecordError(f"'{column}' has a blank word", "Take it out, and its label too.")
            spans += [Span(" ", False), Span(text, True)]
        if not spans:
            return None
        return Document(tuple(spans[1:]), tags=Tags(tuple(map(labels.number, tags)), self.names))


def _list(value: Any, column: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(
            f"'{column}' is {type(value).__name__}, not a list",
            "Give JSON, Parquet or Arrow records with a list of words and a list of labels.",
        )
    return value
