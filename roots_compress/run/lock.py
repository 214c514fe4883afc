"""One writer for each run folder."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from roots_compress.errors import InputError

LOCK_NAME = ".roots-run.lock"
OWNER_NAME = ".roots-run.owner"


class WriterLock:
    """An exclusive lock on a folder, which the operating system releases when its holder ends in any way.

    Links are not followed (filelock opens with `O_NOFOLLOW`). The holder's process id is in a file next to
    the lock, so that a refused process can name it.
    """

    def __init__(self, folder: Path, what: str = "run", option: str = "--run") -> None:
        self._what, self._option = what, option
        self._owner = folder / OWNER_NAME
        self._folder = folder
        self._lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Take the lock, or refuse at once.

        Raises:
            InputError: another process is writing to the folder.
            OSError: the disk failed; the lock is not held then.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"another process is writing to this {self._what}{self._holder()}",
                where=self._folder,
                remedy=f"Wait for it to end, stop it, or choose another folder with {self._option}.",
            ) from None
        try:
            self._owner.unlink(missing_ok=True)
            self._owner.write_text(f"{os.getpid()}\n", encoding="ascii")
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock for the next writer."""
        self._lock.release()

    def _holder(self) -> str:
        try:
            return f" (process {int(self._owner.read_text(encoding='ascii'))})"
        except (OSError, ValueError):
            return ""
