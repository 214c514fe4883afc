"""Reading documents from files: text, CSV, JSON and Parquet, compressed or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roots_compress.data.documents import Document
from roots_compress.data.sources.csv_file import csv_records, separator_advice
from roots_compress.data.sources.files import (
    COMPRESSED_SUFFIXES,
    LINES_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    kind_of,
    read_text,
)
from roots_compress.data.sources.json_file import json_records, jsonl_records
from roots_compress.data.sources.labels import Labels
from roots_compress.data.sources.parquet_file import parquet_records
from roots_compress.data.sources.records import RecordError, candidates, record_document
from roots_compress.errors import InputError, Text, recipe_key

COLUMN_REMEDY = Text(
    "Set ", recipe_key("data", "text_column"), " to the name of the column that holds the text."
)


def read_documents(path: Path, text_column: str, labels: Labels | None = None) -> list[Document]:
    """Return the documents of one file that are not blank, in its order; a text file is one document.

    Args:
        path: the file.
        text_column: the column that holds the text of a record.
        labels: those that each record must have one of.

    Raises:
        InputError: the file is no regular file, of no known kind, or not what its suffix says.
    """
    try:
        found = path.is_file()
        problem = "" if found else "is not a regular file" if path.exists() else "does not exist"
    except OSError as error:  # such as a name too long for a file
        found, problem = False, f"cannot be read: {error.strerror}"
    if not found:
        raise InputError(f"the text file {problem}", where=path, remedy="Name a file that can be read.")
    suffix, compression = kind_of(path)
    if suffix not in SUFFIXES:
        raise InputError(
            f"text is not read from files ending in '{suffix}{compression}'",
            where=path,
            remedy=f"Give one of {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSED_SUFFIXES)} after it; "
            f"unpack archives, rename other plain text to .txt.",
        )
    try:
        if suffix in TEXT_SUFFIXES and labels is not None:
            raise InputError(
                "a file of plain text holds no labels",
                where=path,
                remedy=f"Give CSV, JSON or Parquet with the columns '{text_column}' and '{labels.column}'.",
            )
        if suffix in TEXT_SUFFIXES:
            text = read_text(path)
            return [Document.plain(text)] if text.strip() else []
        return list(_documents(path, suffix, text_column, labels))
    except OSError as error:
        raise _unreadable(path, error) from error


def _documents(path: Path, suffix: str, text_column: str, labels: Labels | None) -> Iterator[Document]:
    """Yield the documents of a file's records; say where a record is that cannot be read."""
    columns = candidates(text_column) if labels is None else (text_column, labels.column)
    for where, record in _records(path, suffix, columns):
        try:
            if labels is None:
                document = record_document(record, text_column)
            else:
                document = labels.document(record, text_column, where)
        except RecordError as error:
            remedy = error.remedy or COLUMN_REMEDY
            if suffix == ".csv" and (advice := separator_advice(list(record))):
                remedy = advice
            raise InputError(str(error), where=where, remedy=remedy) from error
        if document is not None:
            yield document


def _records(path: Path, suffix: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return a file's records, each with where it is."""
    if suffix == ".parquet":
        return parquet_records(path, columns)
    text = read_text(path)
    if suffix in LINES_SUFFIXES:
        return jsonl_records(path, text)
    if suffix == ".json":
        return json_records(path, text)
    return csv_records(path, text, columns)


def begins_with_record(path: Path, text_column: str) -> bool:
    """Return whether a JSON file begins with a record that may hold text, as a file of settings does not.

    Raises:
        InputError: the file cannot be read, or is damaged or no UTF-8 text, so that nobody can tell.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        first = next(json_records(path, text), None)
        if first is not None:
            record_document(first[1], text_column)
    except (InputError, RecordError):
        return False
    return first is not None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the file cannot be read: {error.strerror or error}",
        where=path,
        remedy="Name a file that can be read.",
    )
