"""Reading files that others wrote: regular files only, and JSON that says each thing once."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from roots_compress.errors import InputError

MAX_JSON_BYTES = 256 << 20
"""Tokenizer files of large vocabularies reach tens of megabytes."""
POINTER = b"version https://git-lfs"
"""What a git-LFS pointer begins with."""
HALF_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""What may be half a pair of escapes, for one character or, without its other half, for none."""


def regular_file(path: Path) -> int:
    """Return the size in bytes of a regular file, following links.

    Raises:
        InputError: it is absent, unreadable, a directory, a loop of links, a pipe or device, which could be
            read without end, or a git-LFS pointer.
    """
    with read_errors(path):
        if "\0" in str(path):  # Python's own refusal is no OSError.
            raise FileNotFoundError
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError("is not a regular file", where=path, remedy="Name an ordinary file.")
    refuse_pointer(path)
    return status.st_size


def refuse_pointer(path: Path) -> None:
    """Refuse what git leaves in the place of a large file that was not fetched.

    Raises:
        InputError: the file is such a pointer, or unreadable.
    """
    with readable(path) as file:
        if file.read(len(POINTER)) == POINTER:
            raise InputError(
                "is a git-LFS pointer, not the file itself",
                where=path,
                remedy="Run `git lfs pull` in the repository it came from.",
            )


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read a path, in the block, into an InputError."""
    try:
        yield
    except FileNotFoundError:
        raise InputError("no such file", where=path, remedy="Check the path.") from None
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or error}",
            where=path,
            remedy="Check the path, and whether it may be read.",
        ) from None


@contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; the system's errors, in the block as well, become an InputError."""
    with read_errors(path), path.open("rb") as file:
        yield file


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object a JSON file holds.

    Raises:
        InputError: it is not a regular file, not UTF-8, not one JSON object, or names a key twice.
    """
    return _object(read_json(path), path)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raises as `read_json_object` does, but for its not being an object."""
    if regular_file(path) > MAX_JSON_BYTES:
        raise InputError(
            f"is larger than {MAX_JSON_BYTES >> 20} MB, too large for JSON",
            where=path,
            remedy="Check that it is the right file.",
        )
    with read_errors(path):
        return _parsed(path.read_bytes(), path)


def parse_json_object(data: bytes, where: str | Path) -> dict[str, Any]:
    """Return the object that JSON text holds; raises as `read_json_object` does."""
    return _object(_parsed(data, where), where)


def _object(value: Any, where: str | Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"holds a JSON {type(value).__name__} where an object is needed", where)
    return value


def _parsed(data: bytes, where: str | Path) -> Any:
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_constant
        )
    except UnicodeDecodeError as error:
        _refuse(f"is not UTF-8 text (byte {error.start})", where)
    except json.JSONDecodeError as error:
        _refuse(f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}", where)
    except RecursionError:
        _refuse("is JSON nested too deeply", where)
    except ValueError as error:
        _refuse(f"is not valid JSON: {error}", where)
    if HALF_SURROGATE.search(data) and not _is_text(value):
        _refuse("holds half a surrogate pair, which is no character", where)
    return value


def _refuse(message: str, where: str | Path) -> NoReturn:
    raise InputError(
        message, where=where, remedy="The file is damaged or incomplete; copy or download it again."
    ) from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"key {key!r} stands twice")
        seen[key] = value
    return seen


def _is_text(value: Any) -> bool:
    """Whether all that a value holds can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _constant(name: str) -> float:
    """Return an infinite number, which transformers before version 5 writes so into config.json."""
    if name == "NaN":
        raise ValueError(f"{name} is no JSON number")
    return float(name)
