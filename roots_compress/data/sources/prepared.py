"""Corpora that `data prepare` made: their datasheet, and whether the shards are those that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from roots_compress.errors import InputError, printable
from roots_compress.io.disk import file_sha256
from roots_compress.io.json_files import read_json_object
from roots_compress.results_json import read_strictly

DATASHEET = "datasheet.json"
SHARDS = "part-*"
FORMAT = "roots-corpus-1"
REMEDY = (
    "Bring back the file that was written. Or delete the folder and make the corpus again with: "
    "roots-compress data prepare"
)


class _Read(BaseModel):
    """What is read of a datasheet, in the types that it is written in."""

    model_config = ConfigDict(strict=True)


class _Shard(_Read):
    name: str
    documents: int
    bytes: int
    sha256: str


class _Source(_Read):
    repeats: float


class _Duplicates(_Read):
    exact: bool


class _Settings(_Read):
    shuffle: bool
    duplicates: _Duplicates


class _Datasheet(_Read):
    documents: int
    text_bytes: int
    sha256: str
    read: int
    removed: dict[str, int]
    sources: list[_Source]
    shards: Annotated[list[_Shard], Field(min_length=1)]
    settings: _Settings


def read_datasheet(folder: Path) -> dict[str, Any] | None:
    """Return what a corpus says of itself; None for a folder that is no corpus.

    Raises:
        InputError: it lacks what is read of it, or says it in another form.
    """
    path = folder / DATASHEET
    if not path.is_file():
        return None
    try:
        datasheet = read_json_object(path)
    except InputError as error:
        if not any(folder.glob(SHARDS)):
            return None
        raise InputError(
            f"the datasheet cannot be read: {error.message}", where=path, remedy=REMEDY
        ) from None
    if datasheet.get("format") != FORMAT:
        return None
    try:
        read_strictly(_Datasheet, datasheet)
    except ValueError as error:
        raise InputError(f"the datasheet cannot be read: {error}", where=path, remedy=REMEDY) from None
    return datasheet


def checked_shards(folder: Path, datasheet: dict[str, Any]) -> list[Path]:
    """Return the shards of a corpus in their order, each as it was written.

    Raises:
        InputError: one is missing or was changed.
    """
    shards: list[Path] = []
    for each in datasheet["shards"]:
        name = each["name"]
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"the shard '{printable(name)}' is missing", where=folder, remedy=REMEDY)
        if path.stat().st_size != each["bytes"] or file_sha256(path) != each["sha256"]:
            raise InputError("the shard was changed since it was written", where=path, remedy=REMEDY)
        shards.append(path)
    return shards
