"""Labelled records: a text, and the label that it is to be given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from roots_compress.data.documents import Document
from roots_compress.data.fingerprint import content_key
from roots_compress.data.sources.records import REPEATED, RecordError, record_text
from roots_compress.errors import Text, did_you_mean, recipe_key

DIGITS = re.compile("[0-9]+")
WHOLE_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
SHOWN = 20
"""Labels that a message lists."""


@dataclass(frozen=True)
class Labels:
    """The column that holds a text's label, and the labels that a model knows."""

    column: str
    names: tuple[str, ...]
    """By their numbers."""
    seen: dict[bytes, tuple[int, str]] = field(default_factory=dict, compare=False, repr=False)
    """The label of each text so far, and where that was said: it keeps its label in all files."""

    @cached_property
    def numbered(self) -> bool:
        """Whether a number means a label: not where names have digits that say another, as of stars."""
        return all(
            digits == str(number) for number, name in enumerate(self.names) for digits in DIGITS.findall(name)
        )

    def document(self, record: Mapping[str, Any], text_column: str, where: str) -> Document:
        """Return a record's text with its label.

        Args:
            record: values by their columns.
            text_column: the column of the text.
            where: the record's file and line.

        Raises:
            RecordError: the text is missing or blank; the label is missing or is none of the model's, or the
                text had another before.
        """
        for column in (text_column, self.column):
            if column not in record:
                names = ", ".join(map(repr, record)) or "none"
                raise RecordError(f"no column '{column}'; the columns are {names}", self._advice(column))
        text = record_text(record, text_column)
        if not text.strip():
            raise RecordError(f"'{text_column}' is blank", "Give the record a text, or take it out.")
        plain = Document.plain(text)
        label = self._number(record[self.column])
        first, there = self.seen.setdefault(content_key(plain), (label, where))
        if label != first:
            raise RecordError(
                f"the text has the label '{self.names[label]}', and '{self.names[first]}' in {there}",
                "Give the text one label, or take it out.",
            )
        return Document(plain.spans, label)

    def _number(self, value: Any) -> int:
        """Return the number of a label that is given by its name, or where `numbered` by its number."""
        if value is REPEATED:
            raise RecordError(f"'{self.column}' is given twice")
        if value is None or (isinstance(value, str) and not value.strip()):
            raise RecordError(f"'{self.column}' is blank", "Give the record a label, or take it out.")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self._refusal(f"'{self.column}' is {value!r:.60}, a {type(value).__name__}")
        name = str(value)
        if name in self.names:
            return self.names.index(name)
        if self.numbered and WHOLE_NUMBER.fullmatch(name) and int(name) < len(self.names):
            return int(name)
        near = did_you_mean(name, list(self.names)) if isinstance(value, str) else ""
        raise self._refusal(f"'{self.column}' is {value!r:.60}, which is no label of the model{near}")

    def _refusal(self, message: str) -> RecordError:
        shown = enumerate(self.names[:SHOWN])
        listed = ", ".join(f"{number} {name}" if self.numbered else name for number, name in shown)
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        by = "its number or name" if self.numbered else "its name"
        return RecordError(message, f"Give a label by {by}: {listed}{more}.")

    def _advice(self, column: str) -> Text:
        key, what = ("label_column", "label") if column == self.column else ("text_column", "text")
        return Text("Set ", recipe_key("data", key), f" to the name of the column that holds the {what}.")
