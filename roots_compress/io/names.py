"""Names of files that are not UTF-8, which Linux allows, and libraries that know nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roots_compress.errors import InputError

DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def in_utf8(folder: Path) -> Iterator[Path]:
    """Yield a path to a folder that any library can take: its own, or an alias that ends with the block.

    Raises:
        InputError: its path is not UTF-8, and this system gives no alias.
        OSError: it cannot be opened.
    """
    if is_utf8(folder):
        yield folder
        return
    if not DESCRIPTORS.is_dir():
        raise InputError(
            "a name in the path is not UTF-8", where=folder, remedy="Rename it, or use another folder."
        )
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield DESCRIPTORS / str(descriptor)
    finally:
        os.close(descriptor)


def in_locale(path: Path) -> Path:
    """Return a path of a UTF-8 file as the system names it, also where the locale lacks its characters."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return Path(os.fsdecode(str(path).encode("utf-8", "surrogateescape")))
    return path


def is_utf8(path: Path) -> bool:
    """Whether a path's bytes are its text in UTF-8.

    Bytes that are no text are held as lone surrogates. A locale of another encoding, such as Latin-1, makes
    other text of them.
    """
    try:
        return str(path).encode("utf-8") == os.fsencode(path)
    except UnicodeEncodeError:
        return False
