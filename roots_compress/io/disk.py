"""What lies on a disk, and what still fits."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

_TICK_NS = 2_000_000_000
"""The coarsest clock of a file system counts in 2 s (FAT)."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FileHashes:
    """The sha256 of files. Each is read once, and again where its size, its times or its place changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def sha256(self, path: Path) -> str:
        """Return the sha256 of a file's bytes."""
        now, before = time.time_ns(), _signature(path)
        known = self._known.get(path)
        if known is not None and known[0] == before:
            return known[1]
        found = file_sha256(path)
        # Within a tick of the file system's clock, a later change could leave the same times.
        if _signature(path) == before and before[-1] < now - _TICK_NS:
            self._known[path] = before, found
        return found


def _signature(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content: it ends in the time of the last change."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def amount(count: int) -> str:
    """Return a number of bytes in the unit that shows it: `0 bytes`, `41.0 kB`, `7.35 MB`, `1.50 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            decimals = 2 if count < 10 * size else 1 if count < 100 * size else 0
            return f"{count / size:,.{decimals}f} {unit}"
    return f"{count} bytes"


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder and below, links left out; 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def free_disk(folder: Path) -> int:
    """Return the bytes that may still be written where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def has_file_slots(folder: Path, count: int) -> bool:
    """Whether `count` more files can be made where a folder is; some file systems limit their number."""
    if not hasattr(os, "statvfs"):
        return True
    try:
        status = os.statvfs(folder)
    except OSError:
        return True
    return not status.f_files or status.f_favail >= count
