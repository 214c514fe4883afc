"""Files and folders that appear whole or not at all, even when the machine loses power.

The order is always the same: contents are synced before the name that publishes them, and the folder
that holds the name after it. A rename within one folder is atomic; without the syncs it is not durable.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roots_compress.errors import RootsError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk, or a user's share of it, is full: of bytes or of files."""

_IN_WORDS = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+)")
"""How libraries written in Rust (safetensors, tokenizers) give a number of the system's in an exception."""
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What numpy says where less was written than it gave; it tells no cause."""
_LEAST_FREE_BYTES = 1 << 16


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a small file without ever waiting on what only looks like one (a pipe, a device).

    Raises:
        OSError: there is no such file, it cannot be read, it is not a plain file (`EINVAL`), or it is larger
            than `max_bytes` (`EFBIG`).
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return content


def real_path(path: Path) -> Path:
    """Return a path without links, as far as they lead somewhere; unlike `Path.resolve`, never raises."""
    return Path(os.path.realpath(path))


def sync_file(path: Path) -> None:
    """Force a file's contents to the disk.

    Raises:
        OSError: the disk refused. The contents are then unknown, and a second attempt proves nothing.
    """
    # Windows flushes only what is open for writing; elsewhere a file may be read-only to us.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Force the names in a folder to the disk (Windows has no such call, and journals them itself)."""
    if os.name != "nt":
        sync_file(path)


def sync_tree(folder: Path) -> None:
    """Force a folder and all below it to the disk, each folder after what it holds."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                sync_file(path)
        sync_directory(Path(parent))


def write_text(path: Path, text: str) -> None:
    """Write a file, replacing what was there only once the new text is on the disk.

    Raises:
        OSError: the disk failed, or lost what it was given (`EIO`). What was there before still is.
    """
    content = text.encode("utf-8")
    temporary = path.with_name(f".{path.name}.tmp")
    # One process writes here (the run's lock), so a temporary file found is a dead process's. It is
    # removed rather than opened, because it might be a link.
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if read_regular(temporary, len(content)) != content:
            raise OSError(errno.EIO, "what was written is not what stands there", str(temporary))
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # A stream's own errors name no file.
        raise
    sync_directory(path.parent)


def move_folder(source: Path, target: Path) -> None:
    """Rename a synced folder, durably. `target` must not exist."""
    source.rename(target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder if it is there; a link to a folder is unlinked, never followed."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turn failures of the system that a library tells in words only into the OSError that they mean."""
    try:
        yield
    except RootsError:
        raise
    except Exception as error:
        number = _number_of(error, path)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _number_of(error: Exception, path: Path) -> int | None:
    if isinstance(error, OSError):
        if error.errno is not None or not _SHORT_WRITE.search(str(error)):
            return None
        # A disk is full, or a file as large as the process may make it.
        free = shutil.disk_usage(path if path.is_dir() else path.parent).free
        return errno.ENOSPC if free < _LEAST_FREE_BYTES else errno.EFBIG
    match = _IN_WORDS.search(str(error))
    return int(match[1] or match[2]) if match else None


@contextmanager
def disk_errors(path: Path, kind: type[RootsError]) -> Iterator[None]:
    """Turn a failure of the disk into an error that names the file and the cause."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if isinstance(named, (str, bytes)) and not _is_within(os.fsdecode(named), path):
            raise kind(
                f"cannot be read or written: {error.strerror or error}",
                where=os.fsdecode(named),
                remedy="Check the path, its permissions and the room on its disk; finished stages are kept.",
                transient=True,
            ) from error
        full = error.errno in FULL
        raise kind(
            f"cannot write the run: {error.strerror or error}",
            where=error.filename or path,
            remedy="Free some space, then give the same command again; finished stages are kept."
            if full
            else "Make the folder writable, or choose another with --run; finished stages are kept.",
            transient=True,
        ) from error


def _is_within(name: str, folder: Path) -> bool:
    """Whether a name is in a folder, or in one that the folder is made in."""
    place, whole = real_path(Path(name)), real_path(folder)
    return place.is_relative_to(whole) or whole.is_relative_to(place.parent)


def make_folders(path: Path) -> list[Path]:
    """Make a folder and the parents it lacks; return those that were made, inmost first.

    Raises:
        OSError: one cannot be made. Those that were are gone again.
    """
    lacking = []
    while not path.exists():
        lacking.append(path)
        path = path.parent
    made: list[Path] = []
    try:
        for folder in reversed(lacking):
            folder.mkdir(exist_ok=True)
            made.insert(0, folder)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, inmost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
