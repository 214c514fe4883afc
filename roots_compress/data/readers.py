"""Reading documents from files: text, CSV, JSONL and Parquet."""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from roots_compress.data.documents import Document
from roots_compress.data.records import RecordError, columns_to_read, record_document
from roots_compress.errors import InputError
from roots_compress.run.atomic import real_path

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (".csv", ".parquet")
COLUMN_REMEDY = "Set data.text_column to the name of the column that holds the text."
JSONL_REMEDY = "Write one JSON object on each line."
_OPENING_BYTES = 1 << 20
"""Read first, so that a large file that is not text is refused early."""
SUFFIXES = (*TEXT_SUFFIXES, *JSONL_SUFFIXES, *TABLE_SUFFIXES)


def read_documents(path: Path, text_column: str) -> list[Document]:
    """Return the documents of one file that are not blank, in its order; a text file is one document.

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
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"text is not read from files ending in '{suffix}'",
            where=path,
            remedy=f"Give one of {', '.join(SUFFIXES)}; unpack archives, rename other plain text to .txt.",
        )
    try:
        if suffix == ".parquet":
            return list(_read_table(path, text_column))
        text = _decoded(path)
        if suffix in TEXT_SUFFIXES:
            return [Document.plain(text)] if text.strip() else []
        if suffix in JSONL_SUFFIXES:
            return list(_read_jsonl(path, text, text_column))
        return list(_read_table(path, text_column)) if text.strip() else []
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror or error}",
            where=path,
            remedy="Name a file that can be read.",
        ) from error


def _decoded(path: Path) -> str:
    """Return a file's text, its line ends those of Unix, without a byte order mark."""
    remedy = "Save the file as UTF-8 text."
    with path.open("rb") as file:
        opening = file.read(_OPENING_BYTES)
        if b"\0" in opening:
            _refuse_zero(opening, path, remedy)
        try:
            raw = opening + file.read()
        except MemoryError as error:
            raise InputError(
                f"{path.stat().st_size} bytes of text do not fit in memory", where=path, remedy="Split it."
            ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"byte {raw[error.start]:#04x} is not UTF-8", where=f"{path}:{line}", remedy=remedy
        ) from error
    if "\0" in text:
        _refuse_zero(raw, path, remedy)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_zero(raw: bytes, path: Path, remedy: str) -> NoReturn:
    line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
    raise InputError("a zero byte: this is not text", where=f"{path}:{line}", remedy=remedy)


def _read_jsonl(path: Path, text: str, text_column: str) -> Iterator[Document]:
    """Yield the documents of a file with one JSON object on each line.

    Read here rather than by `datasets`, which can name neither the line at fault nor keep records whose keys
    or types differ.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            cause = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(
                f"the line is not JSON: {cause}", where=f"{path}:{number}", remedy=JSONL_REMEDY
            ) from error
        yield from _checked(record, text_column, where=f"{path}:{number}")


def _read_table(path: Path, text_column: str) -> Iterator[Document]:
    """Yield the documents of a CSV or Parquet file, streamed by `datasets`.

    A stream copies no data; the lock files that `datasets` still writes go to a temporary folder, not to the
    user's home. (`datasets.load_dataset` would also report its use over the network.)
    """
    import datasets

    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # It logs what is raised here as well.
    try:
        with tempfile.TemporaryDirectory(prefix="roots-compress-") as cache:
            pattern = glob.escape(str(real_path(path)))
            if path.suffix.lower() == ".csv":
                # Text as it stands: neither is "NA" a missing value, nor "1" a number.
                text_columns = dict.fromkeys((text_column, "prompt", "response"), str)
                records = datasets.IterableDataset.from_csv(
                    pattern, cache_dir=cache, keep_default_na=False, converters=text_columns
                )
            else:
                records = datasets.IterableDataset.from_parquet(pattern, cache_dir=cache)
                records = records.select_columns(list(columns_to_read(records.column_names, text_column)))
            for number, record in enumerate(records, start=1):
                yield from _checked(record, text_column, where=f"{path}: row {number}")
    except RecordError as error:
        raise InputError(str(error), where=path, remedy=COLUMN_REMEDY) from error
    except ValueError as error:  # What pandas and Arrow raise for a malformed file.
        raise InputError(
            f"the file is malformed: {str(error).strip()}", where=path, remedy="Repair it, or export it anew."
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)


def _checked(record: object, text_column: str, *, where: str) -> Iterator[Document]:
    """Yield a record's document, unless it is blank; say where it stands if it cannot be read."""
    if not isinstance(record, dict):
        raise InputError("the line is not a JSON object", where=where, remedy=JSONL_REMEDY)
    try:
        document = record_document(record, text_column)
    except RecordError as error:
        raise InputError(str(error), where=where, remedy=COLUMN_REMEDY) from error
    if document is not None:
        yield document
