"""JSON Lines, and JSON files that hold an array or a sequence of records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from roots_compress.data.sources.records import REPEATED
from roots_compress.errors import InputError

LINES_REMEDY = "Write one JSON object on each line."
JSON_REMEDY = "Write an array of JSON objects, or one object after another."
SPACE = " \t\n"
LONGEST_NUMBER = 4000
"""Digits of a whole number that Python reads; longer ones, of no use here, are read as floats."""


def jsonl_records(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each record of a file with one JSON object on each line is, `FILE:LINE`, and the record.

    Raises:
        InputError: a line is no JSON object.
    """
    decoder = _decoder()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                record = decoder.decode(line.strip(SPACE))
            except (ValueError, RecursionError) as error:
                cause = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise InputError(
                    f"the line is not JSON: {cause}", where=where, remedy=LINES_REMEDY
                ) from error
            if not isinstance(record, dict):
                raise InputError("the line is not a JSON object", where=where, remedy=LINES_REMEDY)
            yield where, record


def json_records(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each record of an array or a sequence of JSON objects begins, `FILE:LINE`, and the record.

    Raises:
        InputError: the file is something else.
    """
    decoder = _decoder()
    at = _skip(text, 0)
    in_array = text.startswith("[", at)
    end_mark = "]" if in_array else ""
    at = _skip(text, at + 1) if in_array else at
    line, counted = 1, 0
    while at < len(text) and not (end_mark and text.startswith(end_mark, at)):
        line, counted = line + text.count("\n", counted, at), at
        where = f"{path}:{line}"
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if isinstance(error, json.JSONDecodeError):
                where = f"{path}:{error.lineno}"
            cause = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(f"the file is not JSON: {cause}", where=where, remedy=JSON_REMEDY) from error
        if not isinstance(record, dict):
            raise InputError("a value that is not a JSON object", where=where, remedy=JSON_REMEDY)
        yield where, record
        at = _skip(text, at)
        if in_array and text.startswith(",", at):
            at = _skip(text, at + 1)
        elif in_array and not text.startswith(end_mark, at):
            line += text.count("\n", counted, at)
            raise InputError(
                "the array is cut short" if at == len(text) else "a comma is missing after a record",
                where=f"{path}:{line}",
                remedy=JSON_REMEDY,
            )
    if in_array:
        after = _skip(text, at + 1)
        if not text.startswith(end_mark, at) or after < len(text):
            line += text.count("\n", counted, at)
            problem = "text follows the array" if at < len(text) else "the array is cut short"
            raise InputError(problem, where=f"{path}:{line}", remedy=JSON_REMEDY)


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_record, parse_int=_number)


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's values by their keys; the value of a key given twice is `REPEATED`."""
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                record[key] = REPEATED
            seen.add(key)
    return record


def _number(digits: str) -> int | float:
    """Return a whole number; Python refuses to read one of thousands of digits."""
    return int(digits) if len(digits) <= LONGEST_NUMBER else float(digits)


def _skip(text: str, at: int) -> int:
    """Return the place of the next character that is no space."""
    while at < len(text) and text[at] in SPACE:
        at += 1
    return at
