"""Records to documents: a row of a table, or an object of a JSON file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from roots_compress.data.documents import Document
from roots_compress.errors import InputError, Text, recipe_key

REPEATED: Final = object()
"""The value of a key that a JSON object gives twice."""
Record = Mapping[str, Any]


class NamedNumber(int):
    """A number to which its file gives a name, as `datasets` gives labels theirs."""

    names: tuple[str, ...]
    """Of all numbers of its column, from 0 on."""


class RecordError(ValueError):
    """A record that cannot become a document; the reader adds where it is.

    Args:
        message: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Records(ABC):
    """What the records of a run hold, and the document that each becomes."""

    texts_of_files: ClassVar[str | None] = None
    """Why a file of plain text does not serve; None where it is a document."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns that may be read, by which large tables are read in part."""

    @property
    @abstractmethod
    def needed(self) -> str:
        """What a record needs, in words: `the columns 'text' and 'label'`."""

    def recognised(self, record: Record) -> bool:
        """Return whether a record may be one of these: settings in a JSON file, for example, are not."""
        return any(column in record for column in self.columns)

    @abstractmethod
    def document(self, record: Record, where: str) -> Document | None:
        """Return the document a record holds, or None where it is a blank text.

        Args:
            record: values by their columns.
            where: the record's file and line.

        Raises:
            RecordError: it does not hold what a record needs.
        """


@dataclass(frozen=True)
class FieldRecords(Records):
    """Records whose parts are found by the names of columns."""

    fields: Fields

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that may hold any part of a record."""
        return self.fields.columns


def refuse_repeated(columns: Sequence[str], read: Collection[str], where: str) -> None:
    """Refuse a table in which a column that is read has the name of another.

    Raises:
        InputError: there is one.
    """
    for name, count in Counter(columns).items():
        if count > 1 and name in read:
            raise InputError(
                f"{count} columns are named '{name}'",
                where=where,
                remedy="Rename all but the one that is meant.",
            )


def listed(record: Record) -> str:
    """Return the names of a record's columns, for a message."""
    return ", ".join(map(repr, record)) or "none"


def is_null(value: object) -> bool:
    """Return whether a value is null, or the NaN that pandas has in its place and writes into JSON."""
    return value is None or (isinstance(value, float) and value != value)


def is_blank(value: object) -> bool:
    """Return whether a value holds nothing: null, or text of nothing but space."""
    return is_null(value) or (isinstance(value, str) and not value.strip())


def text_of(value: object, name: str, remedy: str) -> str:
    """Return a value that must be text; null is blank.

    Args:
        value: what a record holds.
        name: its column.
        remedy: what to do where it is something else.

    Raises:
        RecordError: it is.
    """
    if is_null(value):
        return ""
    if value is REPEATED:
        raise RecordError(f"'{name}' is given twice", "Take one of them out.")
    if not isinstance(value, str):
        raise RecordError(f"'{name}' is {type(value).__name__}, not text", remedy)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"'{name}' holds half a surrogate pair, which is no character", remedy) from error
    return value


@dataclass(frozen=True)
class Fields:
    """Texts that a record has by names, and the columns that may hold each.

    A column is where a user's own files have it, or one of those that public sets are known for. One within
    an object is written with dots: `translation.de`.
    """

    given: Mapping[str, str]
    """The user's columns, by the names of the texts."""
    known: Mapping[str, tuple[str, ...]]
    """Those of public sets, in the order in which they are looked for."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that may be read."""
        names = [name for text in self.known for name in self._candidates(text)]
        return tuple(dict.fromkeys(part for name in names for part in (name, name.partition(".")[0])))

    def find(self, record: Record, name: str, taken: Collection[str | None] = ()) -> str | None:
        """Return the column that holds a text; None where the record has none.

        Args:
            record: values by their columns.
            name: of the text.
            taken: columns that hold another text.

        Raises:
            RecordError: the user named a column, and the record does not have it.
        """
        if (given := self.given.get(name)) is not None and given in taken:
            raise RecordError(
                f"'{given}' is to hold the {name}, and another text too",
                Text("Set ", recipe_key("data", "fields", name), " to a column of its own."),
            )
        for column in self._candidates(name):
            if column not in taken and _holds(record, column):
                return column
        if name in self.given:
            remedy = Text("Set ", recipe_key("data", "fields", name), " to the column that is meant.")
            raise RecordError(f"no column '{self.given[name]}'; the columns are {listed(record)}", remedy)
        return None

    def require(self, record: Record, name: str, taken: Collection[str | None] = ()) -> str:
        """Return the column that holds a text, as `find` does.

        Raises:
            RecordError: the record has none.
        """
        column = self.find(record, name, taken)
        if column is None:
            tried = ", ".join(map(repr, self._candidates(name)))
            remedy = Text(
                "Set ", recipe_key("data", "fields", name), f" to the column that holds the {name}."
            )
            raise RecordError(
                f"no column holds the {name}: none is called {tried}; the columns are {listed(record)}",
                remedy,
            )
        return column

    def text(self, record: Record, name: str, column: str) -> str:
        """Return the text of a name, which must not be blank.

        Raises:
            RecordError: it is blank, or no text.
        """
        key = recipe_key("data", "fields", name)
        text = text_of(
            value_of(record, column), column, Text("Set ", key, f" to a column with text, the {name}.")
        )
        if not text.strip():
            raise RecordError(
                f"the {name} ('{column}') is blank", f"Give the record a {name}, or take it out."
            )
        return text

    def _candidates(self, name: str) -> tuple[str, ...]:
        return (self.given[name],) if name in self.given else self.known[name]


def value_of(record: Record, column: str) -> Any:
    """Return what a column holds that the record has; one with dots may be within objects."""
    if column in record:
        return record[column]
    value: Any = record
    for part in column.split("."):
        value = value[part]
    return value


def _holds(record: Record, column: str) -> bool:
    try:
        value_of(record, column)
    except (KeyError, TypeError):
        return False
    return True
