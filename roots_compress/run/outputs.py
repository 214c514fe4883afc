"""Places where output may go, and output folders that appear completely or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from roots_compress.errors import InputError, StageError
from roots_compress.io.atomic import (
    FULL,
    make_folders,
    move_folder,
    real_path,
    remove_empty,
    sync_tree,
    write_text,
)
from roots_compress.io.disk import amount, free_disk, has_file_slots
from roots_compress.run.manifest import MANIFEST_NAME
from roots_compress.run.marker import MARKER_NAME

RunFile = Literal["recipe.yaml", "resolved.json", "metrics.json", "report.html"]
"""The files that describe a run. `fresh` deletes these, a search's, the manifest, stages and cache."""
ExtraFile = Literal["search.json", "best.yaml", "failure.txt"]
"""The files that some runs have besides: a search's two, and why an unfinished run failed."""
_OF_A_RUN = re.compile(r"\..*|\d\d-.*|shelf")
"""Other parts of a run: stages, finished or not, and the stage cache."""
MOST_FILES = 16
"""At least the number of files and folders in an output."""


def refuse_inside(output: Path, source: Path | None) -> None:
    """Refuse a place inside the output's source, or inside a run.

    Runs do not nest, and a stage with a file that its manifest does not name is made again.

    Raises:
        InputError: it is inside its source or inside a run.
    """
    place = real_path(output)
    if source is not None and source.is_dir() and place.is_relative_to(real_path(source)):
        raise InputError(
            f"output lies in {source}, which it is made from",
            where=output,
            remedy="Name a folder outside: what is read is never written to.",
        )
    if run := enclosing_run(output):
        raise InputError(
            f"output lies in the run {run}",
            where=output,
            remedy="Name a folder outside the run: an unknown file in a run makes its stage invalid.",
        )


def enclosing_run(path: Path) -> Path | None:
    """Return the run that contains a place; None if there is none. A run does not contain itself."""
    return next((each for each in real_path(path).parents if (each / MARKER_NAME).is_file()), None)


def check_output_file(path: Path) -> None:
    """Refuse an output file that could not be written, before the work. Nothing is left behind.

    A run's folder may have other files; a file of the run may not be replaced.

    Raises:
        InputError: the system refuses it, something other than an ordinary file is there, or the file belongs
            to the run.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError("is not an ordinary file", where=path, remedy="Name a file.")
        made = make_folders(path.parent)
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent):
                path.exists()  # A name that is too long is an error.
        finally:
            remove_empty(made)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            remedy="Name a file in a folder that may be written to, on a disk with some room.",
        ) from None
    run = enclosing_run(path)
    if run is not None:
        first = real_path(path).relative_to(real_path(run)).parts[0]
        if first in (*get_args(RunFile), *get_args(ExtraFile), MANIFEST_NAME) or _OF_A_RUN.fullmatch(first):
            raise InputError(
                f"belongs to the run {run}",
                where=path,
                remedy="Give the file another name, outside the folders of the run's stages.",
            )


def write_output(path: Path, text: str) -> None:
    """Write a file that `check_output_file` has allowed, completely or not at all, and its missing folders.

    Raises:
        OSError: the disk failed.
    """
    make_folders(path.parent)
    write_text(path, text)


@contextmanager
def new_folder(path: Path, *, source: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a folder to fill; at the end of the block it becomes `path`; if the block fails it is deleted.

    Its parents are made, and deleted if the block fails. `size` is the approximate size of its weights.

    Raises:
        InputError: `path` exists already, is inside its source or a run, or cannot be made.
        StageError: it cannot be written: the disk is full, or fails.
    """
    made: list[Path] = []
    # The temporary name does not contain the name, which may have the largest allowed length.
    partial = path.parent / f".{secrets.token_hex(8)}.partial"
    try:
        if path.exists() or path.is_symlink():
            raise InputError(
                "output exists already", where=path, remedy="Name a new folder, or remove this one."
            )
        refuse_inside(path, source)
        made = make_folders(path.parent)
        path.exists()  # In an existing folder, a name that is too long is an error.
        partial.mkdir()
    except OSError as error:
        remove_empty(made)
        raise InputError(
            f"output cannot be made: {error.strerror or error}", where=path, remedy="Name another folder."
        ) from error
    try:
        yield partial
        sync_tree(partial)
        move_folder(partial, path)
    except BaseException as error:
        out_of_files = isinstance(error, OSError) and not has_file_slots(partial, MOST_FILES)
        shutil.rmtree(partial, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, OSError):
            raise unwritten(error, partial, path, size, out_of_files=out_of_files) from error
        raise


def unwritten(
    error: OSError, partial: Path, path: Path, size: int | None = None, *, out_of_files: bool = False
) -> StageError:
    """Return the error for an output that failed.

    Args:
        size: the approximate size of its weights.
        out_of_files: whether the disk cannot hold further files.
    """
    cause = error.strerror or error
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, Path)) else partial
    # Code that fills the folder may use a neighbouring folder with a longer name.
    if not any(partial.name in part for part in named.parts):
        return StageError(
            f"cannot be read or written: {cause}",
            where=named,
            remedy="Check the path, its permissions and the room on its disk.",
            transient=True,
        )
    remedy = "Free some space, or name a folder on another disk."
    if error.errno in FULL and out_of_files:
        remedy = f"There no more files can be made: the disk has a limit on their number. {remedy}"
    elif error.errno in FULL and size is not None:
        remedy = f"The weights alone take {amount(size)}, and {amount(free_disk(path))} are free. {remedy}"
    return StageError(f"output cannot be written: {cause}", where=path, remedy=remedy, transient=True)
