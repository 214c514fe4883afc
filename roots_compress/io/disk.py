"""What lies on a disk, and what still fits."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def amount(count: int) -> str:
    """Return a number of bytes in the unit that shows it: `0 bytes`, `41.0 kB`, `7.35 MB`, `1.50 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            decimals = 2 if count < 10 * size else 1 if count < 100 * size else 0
            return f"{count / size:,.{decimals}f} {unit}"
    return f"{count} bytes"


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
