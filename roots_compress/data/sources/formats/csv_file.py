"""CSV read strictly: a row that does not fit its header is refused, never shifted or cut."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from roots_compress.data.sources.files import kind_of
from roots_compress.data.sources.records import refuse_repeated
from roots_compress.errors import InputError

LONGEST_FIELD = (1 << 31) - 1
"""What `csv` takes on every system; its own default is 128 kB."""
QUOTES_REMEDY = (
    "Put a field that holds the separator, a quote or a line end in quotes, and write a quote in it twice."
)


def csv_records(
    path: Path, lines: Iterable[str], columns: Collection[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row begins, `FILE:LINE`, and its fields by the names of the header.

    Every field is text. A row is as long as the header; empty fields after its end are dropped, in the header
    too, and a blank row is none. Fields are separated by commas, in a file ending in `.tsv` by tabs.

    Args:
        path: the file.
        lines: what it holds, each line with its end.
        columns: those that are read.

    Raises:
        InputError: a row is shorter or longer than the header, text follows a closing quote, a quote is never
            closed, or a column that is read is named twice.
    """
    separator = "\t" if kind_of(path)[0] == ".tsv" else ","
    rest = iter(lines)
    opening = list(islice(rest, 2))
    rows = _rows(path, opening, rest, separator)
    header = next(rows, None)
    if header is None:
        return
    line, names = header
    names = names[: _width(names)]
    refuse_repeated(names, columns, f"{path}:{line}")
    named_rows = False
    for number, (line, fields) in enumerate(rows, start=1):
        where = f"{path}:{line}"
        if number == 1 and _begins_named_rows(fields, names, opening):
            named_rows, names = True, ["", *names]
        if named_rows and fields[0] != str(number):
            raise InputError(
                f"the row opens with {fields[0]!r}; the rows before open with their number, "
                "for which the header has no name",
                where=where,
                remedy="Name every column in the header.",
            )
        if len(fields) < len(names) or _width(fields) > len(names):
            count = min(len(fields), max(_width(fields), len(names) - 1))
            raise InputError(
                f"the row has {count} field{'s' * (count != 1)}, its header {len(names)}",
                where=where,
                remedy=separator_advice(names) or QUOTES_REMEDY,
            )
        yield where, dict(zip(names, fields, strict=False))


def separator_advice(columns: list[str]) -> str:
    """Return what to do about a header that another separator would part; '' where none would."""
    if len(columns) == 1:
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in columns[0]:
                tabs = " or end its name in .tsv" if separator == "\t" else ""
                return f"The file seems to be separated by {name}: save it with commas{tabs}."
    return ""


def _rows(
    path: Path, opening: list[str], rest: Iterator[str], separator: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each row begins in, and its fields; blank rows are left out."""
    reader = csv.reader(chain(opening, rest), delimiter=separator, strict=True)
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                place = f" in line {reader.line_num}" if reader.line_num > line else ""
                header = [opening[0].removesuffix("\n")] if line == 1 else []
                raise InputError(
                    f"the file is malformed: {_cause(str(error), place)}",
                    where=f"{path}:{line}",
                    remedy=separator_advice(header) or QUOTES_REMEDY,
                ) from error
            if any(field.strip() for field in row):
                yield line, row
    finally:
        csv.field_size_limit(limit)


def _cause(message: str, place: str) -> str:
    """Say in plain words what `csv` found in a row."""
    if "expected after" in message:
        return f"text follows a closing quote{place}"
    if "unexpected end of data" in message:
        return "a quote that opens in this row is never closed"
    return f"{message}{place}"


def _width(fields: list[str]) -> int:
    """Return the number of fields up to the last that is not empty."""
    return next((index for index in range(len(fields), 0, -1) if fields[index - 1]), 0)


def _begins_named_rows(fields: list[str], names: list[str], opening: list[str]) -> bool:
    """Return whether the first row opens with its number in quotes, for which the header has no name.

    R writes tables so; a column of text with a comma in it opens with no number in quotes.
    """
    opens = opening[-1].startswith('"1"')
    return opens and fields[0] == "1" and _width(fields) == len(names) + 1
