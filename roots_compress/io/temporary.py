"""Folders for files that are needed for a moment only, and what is said where there is no room for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roots_compress.errors import StageError
from roots_compress.io.atomic import FULL
from roots_compress.io.names import in_utf8

PREFIX = "roots-compress-"
MISSING = "No usable temporary directory"
"""What `tempfile` says where it finds none."""
SETTING = "TMPDIR"
"""What names the folder that temporary files go to, on systems other than Windows."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new, empty folder, which goes with all that it holds when the block ends.

    Raises:
        StageError: there is no folder for temporary files, or it has no room for what the block writes.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:  # The message lists what was tried.
        raise _refusal(str(error.strerror or error), os.environ.get(SETTING)) from error
    try:
        folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        raise _refusal(str(error.strerror or error), place) from error
    with folder as name:
        try:
            with in_utf8(Path(name)) as alias:
                yield alias
        except OSError as error:
            # A copy that fails names the file it reads first.
            files = error.filename, error.filename2
            named = [os.fsdecode(each) for each in files if isinstance(each, (str, bytes, os.PathLike))]
            if error.errno in FULL or any(Path(each).is_relative_to(name) for each in named):
                raise _refusal(str(error.strerror or error), place) from error
            raise


def missing_folder(error: OSError) -> StageError | None:
    """Return what to tell of an error by which a library says that there is no temporary folder."""
    said = str(error.strerror)
    return _refusal(said, os.environ.get(SETTING)) if said.startswith(MISSING) else None


def _refusal(cause: str, place: Path | str | None) -> StageError:
    return StageError(
        f"temporary files cannot be written: {cause}",
        where=place,
        remedy=f"Free some space there, or set {SETTING} to a folder that can be written to.",
        transient=True,
    )
