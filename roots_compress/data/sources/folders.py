"""The data files under a folder, and what else is there and is not read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from roots_compress.data.sources.files import is_data, kind_of
from roots_compress.data.sources.prepared import checked_shards, read_datasheet
from roots_compress.data.sources.readers import begins_with_record
from roots_compress.data.sources.records import Records
from roots_compress.data.sources.saved_sets import files_of_set, refuse_several_splits
from roots_compress.errors import InputError, printable

ABOUT_DATA = frozenset(
    {"readme", "license", "licence", "copying", "notice", "authors", "citation", "changelog", "contributing"}
)
"""Names of files, in any case and without ending, that say something about data and are none."""
SHOWN = 3


@dataclass
class Listing:
    """The data files under a folder, in the order of their names, and what was passed over."""

    folder: Path | None
    """None for a file that was named itself."""
    files: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=dict)
    """Names, relative to the folder, under a word that says why."""

    def pass_over(self, why: str, name: str) -> None:
        """Note that something is not read."""
        self.passed_over.setdefault(why, []).append(name)

    def in_words(self) -> str:
        """Return what is read and what is not, ` (1 file: a.txt; passed over: 1 hidden (.git))`.

        Nothing is said of a file that was named itself.
        """
        if self.folder is None:
            return ""
        files = [str(path.relative_to(self.folder)) for path in self.files]
        read = f"{len(files):,} file{'s' * (len(files) != 1)}" + (f": {first_names(files)}" if files else "")
        passed_over = ", ".join(
            f"{len(names):,} {why} ({first_names(sorted(names))})"
            for why, names in sorted(self.passed_over.items())
        )
        return f" ({read}{'; passed over: ' if passed_over else ''}{passed_over})"


def first_names(names: list[str]) -> str:
    """Return up to three names, and how many more there are."""
    rest = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + rest


def list_folder(folder: Path, records: Records) -> Listing:
    """Return the data files under a folder; links are followed, and each file is read once.

    Not data are: files and folders whose names begin with a dot, files about the data such as README.md,
    files of other kinds, and JSON files that do not begin with a record, as settings do not. Of a corpus that
    `data prepare` made the shards are read, which its datasheet names; of a set that `datasets` saved its
    own files.

    Raises:
        InputError: a folder or file in it cannot be looked at, without it the text would be another; or a
            shard is missing, or is not the one that was written; or it holds several splits.
    """
    listing = Listing(folder)
    refuse_several_splits(folder)
    if (datasheet := read_datasheet(folder)) is not None:
        listing.files = checked_shards(folder, datasheet)
        return listing
    seen: set[tuple[int, int]] = set()
    sets: dict[Path, frozenset[str] | None] = {}
    for path in _all_files(folder, listing, seen):
        name = str(path.relative_to(folder))
        why = _reason_to_pass_over(path, records)
        if not why and path.suffix == ".arrow":
            if path.parent not in sets:
                sets[path.parent] = files_of_set(path.parent)
            names = sets[path.parent]
            why = "" if names is None or path.name in names else "not of the data set beside it"
        if not why and not _is_new(path, seen):
            why = "linked twice"
        if why:
            listing.pass_over(why, name)
        else:
            listing.files.append(path)
    listing.files.sort()
    return listing


def _all_files(folder: Path, listing: Listing, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield what is no folder under a folder, hidden names left out, links after what is none."""

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"the folder cannot be listed: {error.strerror}",
            where=error.filename or folder,
            remedy="Make it readable, or name the files that are meant.",
        ) from error

    _is_new(folder, seen)
    linked: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        inner = Path(parent)
        shown = list(_shown(inner, folders, folder, listing))
        real = [path for path in shown if not path.is_symlink()]
        for path in real:
            _is_new(path, seen)
        # A folder that is reached by a link, but is read by its own name too, is walked once.
        links = [path for path in shown if path.is_symlink() and _is_new(path, seen)]
        folders[:] = sorted(path.name for path in (*real, *links))
        for path in _shown(inner, names, folder, listing):
            if path.is_symlink():
                linked.append(path)
            else:
                yield path
    yield from sorted(linked)


def _shown(parent: Path, names: Iterable[str], folder: Path, listing: Listing) -> Iterator[Path]:
    for name in sorted(names):
        if name.startswith("."):
            listing.pass_over("hidden", str((parent / name).relative_to(folder)))
        else:
            yield parent / name


def _reason_to_pass_over(path: Path, records: Records) -> str:
    """Return why a file is not read; '' where it is."""
    suffix, compression = kind_of(path)
    if path.name.partition(".")[0].lower() in ABOUT_DATA:
        return "about the data"
    if not is_data(path):
        return f"ending in {printable(suffix + compression)}" if suffix + compression else "without an ending"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a regular file"
    except FileNotFoundError:
        return "linked to nothing"
    except OSError as error:
        if path.is_symlink() and not path.exists():  # a link to itself
            return "linked to nothing"
        raise InputError(
            f"the file cannot be read: {error.strerror}", where=path, remedy="Make it readable, or move it."
        ) from error
    if suffix == ".json" and not begins_with_record(path, records):
        return "without records"
    return ""


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Return whether a file or folder was not met before, under any name; from now on it was."""
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    if status.st_ino and key in seen:
        return False
    seen.add(key)
    return True
