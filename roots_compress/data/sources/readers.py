"""Reading documents from files: text, CSV, JSON, Parquet and Arrow, compressed or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roots_compress.data.documents import Document
from roots_compress.data.sources.files import (
    ARROW_SUFFIXES,
    COMPRESSED_SUFFIXES,
    LINES_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    kind_of,
    read_text,
    text_lines,
)
from roots_compress.data.sources.formats.arrow_file import arrow_records
from roots_compress.data.sources.formats.csv_file import csv_records, separator_advice
from roots_compress.data.sources.formats.json_file import json_records, jsonl_records
from roots_compress.data.sources.formats.parquet_file import parquet_records
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.records import Record, RecordError, Records
from roots_compress.errors import InputError
from roots_compress.io.json_files import refuse_pointer

TEXTS = PlainTexts()


def read_documents(path: Path, records: Records = TEXTS) -> list[Document]:
    """Return the documents of one file; arguments and errors are those of `stream_documents`."""
    return [document for _, document in stream_documents(path, records)]


def stream_documents(path: Path, records: Records = TEXTS) -> Iterator[tuple[str, Document]]:
    """Yield the documents of one file that are not blank, in its order, each with where it is.

    A text file is one document. Records are read one after another; a `.json` file is read whole.

    Args:
        path: the file.
        records: what each record holds.

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
        if suffix in TEXT_SUFFIXES and records.texts_of_files is not None:
            raise InputError(
                f"a file of plain text {records.texts_of_files}",
                where=path,
                remedy=f"Give CSV, JSON, Parquet or Arrow records with {records.needed}.",
            )
        refuse_pointer(path)
        if suffix in TEXT_SUFFIXES:
            text = read_text(path)
            if text.strip():
                yield str(path), Document.plain(text)
            return
        yield from _documents(path, suffix, records)
    except OSError as error:
        raise _unreadable(path, error) from error


def _documents(path: Path, suffix: str, records: Records) -> Iterator[tuple[str, Document]]:
    """Yield the documents of a file's records; say where a record is that cannot be read."""
    for where, record in _records(path, suffix, records.columns):
        try:
            document = records.document(record, where)
        except RecordError as error:
            remedy = error.remedy
            if suffix == ".csv" and (advice := separator_advice(list(record))):
                remedy = advice
            raise InputError(str(error), where=where, remedy=remedy) from error
        if document is not None:
            yield where, document


def _records(path: Path, suffix: str, columns: tuple[str, ...]) -> Iterator[tuple[str, Record]]:
    """Return a file's records, each with where it is."""
    if suffix == ".parquet":
        return parquet_records(path, columns)
    if suffix in ARROW_SUFFIXES:
        return arrow_records(path, columns)
    if suffix in LINES_SUFFIXES:
        return jsonl_records(path, text_lines(path))
    if suffix == ".json":
        return json_records(path, read_text(path))
    return csv_records(path, text_lines(path), columns)


def begins_with_record(path: Path, records: Records) -> bool:
    """Return whether a JSON file begins with a record that is read, as a file of settings does not.

    Raises:
        InputError: the file cannot be read, or is damaged or no UTF-8 text, so that nobody can tell.
    """
    refuse_pointer(path)
    try:
        text = read_text(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        first = next(json_records(path, text), None)
    except InputError:
        return False
    return first is not None and records.recognised(first[1])


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the file cannot be read: {error.strerror or error}",
        where=path,
        remedy="Name a file that can be read.",
    )
