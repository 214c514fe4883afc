"""Labelled records: a text, and the label that it is to be given."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

from roots_compress.data.documents import FIRST, SECOND, Document, Span
from roots_compress.data.fingerprint import content_key
from roots_compress.data.sources.records import (
    REPEATED,
    NamedNumber,
    Record,
    RecordError,
    Records,
    is_blank,
    listed,
    text_of,
)
from roots_compress.errors import Text, did_you_mean, recipe_key

DIGITS = re.compile("[0-9]+")
WHOLE_NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})(?:\.0)?")
"""As tables write it whose column had a gap, which makes pandas take all of it for fractions: `1.0`."""
PARTNERS = {
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "text1": "text2",
    "question1": "question2",
    "question": "sentence",
}
"""Columns of public sets that hold two texts with one label, such as MNLI's."""
UNNAMED = "text"
"""The column of the text where the user names none."""
SHOWN = 20
"""Labels that a message lists."""


@dataclass(frozen=True)
class Labels(Records):
    """A text, or two that are read together, and the label of those that a model knows."""

    texts_of_files: ClassVar[str | None] = "holds no labels"
    text_column: str
    column: str
    """Holds the label."""
    names: tuple[str, ...]
    """By their numbers."""
    second: str | None = None
    """Holds a text that is read with the first; by default its partner, where neither is named."""
    seen: dict[bytes, tuple[int, str]] = field(default_factory=dict, compare=False, repr=False)
    """The label of each text so far, and where that was said: it keeps its label in all files."""

    @cached_property
    def numbered(self) -> bool:
        """Whether a number means a label: not where names have digits that say another, as of stars."""
        return all(
            digits == str(number) for number, name in enumerate(self.names) for digits in DIGITS.findall(name)
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the texts and of the label."""
        partners = (*PARTNERS, *PARTNERS.values()) if self.text_column == UNNAMED else ()
        second = () if self.second is None else (self.second,)
        return tuple(dict.fromkeys((self.text_column, self.column, *second, *partners)))

    @property
    def needed(self) -> str:
        """Both columns."""
        return f"the columns '{self.text_column}' and '{self.column}'"

    def document(self, record: Record, where: str) -> Document:
        """Return a record's text with its label.

        Raises:
            RecordError: the text is missing or blank; the label is missing or is none of the model's, or the
                text had another before.
        """
        columns = self._texts(record)
        for column in (*columns, self.column):
            if column not in record:
                raise RecordError(
                    f"no column '{column}'; the columns are {listed(record)}", self._advice(column)
                )
        texts = [text_of(record[column], column, self._advice(column)) for column in columns]
        for column, text in zip(columns, texts, strict=True):
            if not text.strip():
                raise RecordError(f"'{column}' is blank", "Give the record a text, or take it out.")
        label = self.number(record[self.column])
        plain = Document.plain(texts[0])
        if len(texts) > 1:
            plain = Document((Span(texts[0], True, FIRST), Span(texts[1], True, SECOND)))
        first, there = self.seen.setdefault(content_key(plain), (label, where))
        if label != first:
            raise RecordError(
                f"the text has the label '{self.names[label]}', and '{self.names[first]}' in {there}",
                "Give the text one label, or take it out.",
            )
        return Document(plain.spans, label)

    def _texts(self, record: Record) -> tuple[str, ...]:
        """Return the columns of a record's texts, one or two."""
        first, second = self.text_column, self.second
        if first == UNNAMED and first not in record:
            pairs = (each for each in PARTNERS.items() if record.keys() >= set(each))
            first, partner = next(pairs, (first, None))
            second = second or partner
        return (first,) if second is None else (first, second)

    def number(self, value: Any) -> int:
        """Return the number of a label that is given by its name, or where `numbered` by its number.

        A number to which the file gives a name means the label of that name, unless the model knows none of
        the file's names.

        Raises:
            RecordError: there is no such label.
        """
        if value is REPEATED:
            raise RecordError(f"'{self.column}' is given twice", "Take one of them out.")
        if is_blank(value):
            raise RecordError(f"'{self.column}' is blank", "Give the record a label, or take it out.")
        if isinstance(value, bool):  # It may be a label's name.
            value = next((name for name in self.names if name.capitalize() == str(value)), value)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self._refusal(f"'{self.column}' is {value!r:.60}, a {type(value).__name__}")
        if isinstance(value, NamedNumber) and (known := _known(value.names, self.names)):
            if value in known:
                return known[value]
            called = dict(enumerate(value.names)).get(value)
            said = "" if called is None else f" ('{called:.60}' in the file)"
            raise self._refusal(f"'{self.column}' is {value}{said}, which is no label of the model")
        name = str(value)
        if name in self.names:
            return self.names.index(name)
        number = WHOLE_NUMBER.fullmatch(name)
        if self.numbered and number and int(number[1]) < len(self.names):
            return int(number[1])
        near = did_you_mean(name, list(self.names)) if isinstance(value, str) else ""
        raise self._refusal(f"'{self.column}' is {value!r:.60}, which is no label of the model{near}")

    def _refusal(self, message: str) -> RecordError:
        shown = enumerate(self.names[:SHOWN])
        listed = ", ".join(f"{number} {name}" if self.numbered else name for number, name in shown)
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        by = "its number or name" if self.numbered else "its name"
        return RecordError(message, f"Give a label by {by}: {listed}{more}.")

    def _advice(self, column: str) -> Text:
        if column == self.second:
            key, what = recipe_key("data", "fields", SECOND), "text"
        elif column == self.column:
            key, what = recipe_key("data", "label_column"), "label"
        else:
            key, what = recipe_key("data", "text_column"), "text"
        return Text("Set ", key, f" to the name of the column that holds the {what}.")


@lru_cache(maxsize=64)
def _known(theirs: tuple[str, ...], ours: tuple[str, ...]) -> dict[int, int]:
    """Return a model's numbers of labels, by a file's numbers of those that have the same names.

    Small and capital letters are alike where no name is the same in both.
    """
    own = {name: number for number, name in enumerate(ours)}
    folded = {name.casefold(): number for name, number in own.items()} | own
    found = {number: folded.get(name, folded.get(name.casefold())) for number, name in enumerate(theirs)}
    return {number: label for number, label in found.items() if label is not None}
