"""Corpora that `data prepare` made: their datasheet, and whether the shards are those that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roots_compress.errors import InputError, printable
from roots_compress.io.disk import file_sha256
from roots_compress.io.json_files import read_json_object

DATASHEET = "datasheet.json"
FORMAT = "roots-corpus-1"
REMEDY = "Bring back the file that was written, or make the corpus again with: roots-compress data prepare"


def read_datasheet(folder: Path) -> dict[str, Any] | None:
    """Return what a corpus says of itself; None for a folder that is no corpus."""
    path = folder / DATASHEET
    if not path.is_file():
        return None
    try:
        datasheet = read_json_object(path)
    except InputError:
        return None
    return datasheet if datasheet.get("format") == FORMAT else None


def checked_shards(folder: Path, datasheet: dict[str, Any]) -> list[Path]:
    """Return the shards of a corpus in their order, each as it was written.

    Raises:
        InputError: one is missing or was changed, or the datasheet does not name them.
    """
    try:
        named = [(str(each["name"]), int(each["bytes"]), str(each["sha256"])) for each in datasheet["shards"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "the datasheet does not say which shards there are", where=folder / DATASHEET, remedy=REMEDY
        ) from error
    shards: list[Path] = []
    for name, size, sha256 in named:
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"the shard '{printable(name)}' is missing", where=folder, remedy=REMEDY)
        if path.stat().st_size != size or file_sha256(path) != sha256:
            raise InputError("the shard was changed since it was written", where=path, remedy=REMEDY)
        shards.append(path)
    return shards
