"""The marker of our run folders, and the refusal of folders without it."""

from __future__ import annotations

import json
from pathlib import Path

from roots_compress.errors import InputError
from roots_compress.io import atomic
from roots_compress.results import SCHEMA
from roots_compress.run.keys import canonical_json
from roots_compress.run.lock import LOCK_NAME, OWNER_NAME

MARKER_NAME = ".roots-run.json"

_BEFORE_MARKER = {LOCK_NAME, OWNER_NAME, f".{MARKER_NAME}.tmp"}
_MAX_MARKER_BYTES = 1 << 20


def marker_text() -> str:
    """Return the marker's content."""
    return canonical_json({"schema": SCHEMA}) + "\n"


def refuse_foreign(path: Path) -> None:
    """Refuse a place with anything other than one of our runs. Nothing is written.

    Raises:
        InputError: it is a file or is under one, it cannot be read, or it is a folder with contents but
            without our marker.
    """
    with atomic.disk_errors(path, InputError):
        try:
            names = {entry.name for entry in path.iterdir()}
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise InputError(
                "is a file, not a folder, or lies under one",
                where=path,
                remedy="Choose another folder with --run.",
            ) from None
    if names <= _BEFORE_MARKER:
        return
    try:
        schema = json.loads(atomic.read_regular(path / MARKER_NAME, _MAX_MARKER_BYTES))["schema"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        what = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise InputError(
            f"output folder in use: it holds files, but no run of roots-compress ({MARKER_NAME} is {what})",
            where=path,
            remedy="Choose another folder with --run, or empty this one yourself; --fresh never does.",
        ) from None
    if schema != SCHEMA:
        raise InputError(
            f"output folder in use: its run has schema {schema!r}, and this version writes schema {SCHEMA}",
            where=path,
            remedy="Choose another folder with --run, or go on with the version that made this one.",
        )
