"""What lies on a disk, and what still fits."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def free_disk(folder: Path) -> int:
    """Return the bytes that may still be written where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
