"""Folders that `save_to_disk` of `datasets` wrote: the files of a data set, or a folder for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roots_compress.errors import InputError, printable
from roots_compress.io.json_files import read_json_object

STATE, SPLITS = "state.json", "dataset_dict.json"
FILES, SELECTION = "_data_files", "_indices_data_files"
SAVE_AGAIN = "Load it with datasets, and save it again by save_to_disk."


def refuse_several_splits(folder: Path) -> None:
    """Refuse a folder that holds several splits: read together, text to test on would be trained on.

    Raises:
        InputError: it does.
    """
    path = folder / SPLITS
    listed = read_json_object(path).get("splits") if path.is_file() else None
    if isinstance(listed, list) and len(listed) > 1:
        names = ", ".join(printable(str(name)) for name in listed)
        raise InputError(
            f"the folder holds the splits {names[:200]} of a data set",
            where=path,
            remedy=f"Name the folder of one: {folder / printable(str(listed[0]))}.",
        )


def files_of_set(folder: Path) -> frozenset[str] | None:
    """Return the names of the files that a data set in a folder consists of; None where there is no such set.

    What `datasets` keeps beside them are results of its own work, and no part of the set.

    Raises:
        InputError: a file is missing, or the set is a selection of rows that only `datasets` makes.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state = read_json_object(path)
    except InputError:
        return None  # Of another program, whose file is judged as all others.
    if not isinstance(state.get(FILES), list):
        return None
    if state.get(SELECTION):
        raise InputError("is of a data set with a selection of rows", where=path, remedy=SAVE_AGAIN)
    names = [_name(entry) for entry in state[FILES]]
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise InputError(
            f"names {absent[0]!r:.100} as a file of the data set, which is not there",
            where=path,
            remedy="Copy the folder again.",
        )
    return frozenset(names)


def _name(entry: Any) -> str:
    name = entry.get("filename") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and Path(name).name == name else repr(entry)
