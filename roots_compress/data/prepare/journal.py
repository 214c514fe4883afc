"""A folder of growing files from which work goes on after a kill.

Files are only appended to. A commit syncs them, and then records their lengths and the progress of the work.
When the folder is opened again, files are cut to these lengths and the work goes on from there. So the result
has the same bytes, wherever it was killed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from roots_compress.io.atomic import sync_directory, sync_file, write_text
from roots_compress.run.keys import canonical_json, checked_content, with_sha256

Position = dict[str, Any]
"""The progress of the work, as JSON."""
STATE_NAME = "state.json"
MOST_BUFFERED = 1 << 24
"""Bytes held in memory before it is time to commit."""


class Journal:
    """Growing files in a folder, with the progress of the work.

    Args:
        folder: exists; what an earlier try left in it is cut to its last commit.

    Raises:
        ValueError: what an earlier try left was changed since; the message names the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = _read_state(folder)
        self._lengths: dict[str, int] = found.get("files", {})
        self.position: Position = found.get("position", {})
        """The progress at the last commit; empty if there was none."""
        self._buffers: dict[str, bytearray] = {}
        self._buffered = 0
        for name, length in self._lengths.items():
            if not (folder / name).is_file() or (folder / name).stat().st_size < length:
                raise ValueError(f"{name} is shorter than it was")
            with (folder / name).open("r+b") as file:
                file.truncate(length)

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        return self._buffered >= MOST_BUFFERED

    def append(self, name: str, data: bytes | memoryview) -> None:
        """Add to a file; it is written by the next commit."""
        self._buffers.setdefault(name, bytearray()).extend(data)
        self._buffered += len(data)

    def length(self, name: str) -> int:
        """Return a file's bytes, those included that are not yet written."""
        return self._lengths.get(name, 0) + len(self._buffers.get(name, b""))

    def commit(self, position: Position) -> None:
        """Write the additions, and then the progress of the work."""
        made = False
        for name, data in self._buffers.items():
            path = self.folder / name
            made |= name not in self._lengths
            # Not appended: an earlier try may have left more after the last commit.
            with path.open("r+b" if path.exists() else "xb") as file:
                file.seek(self._lengths.get(name, 0))
                file.write(data)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            self._lengths[name] = file_length = self._lengths.get(name, 0) + len(data)
            assert path.stat().st_size == file_length
        self._buffers.clear()
        self._buffered = 0
        if made:
            sync_directory(self.folder)
        self._write(position)

    def changed(self, name: str, position: Position) -> None:
        """Commit what was changed within a file that does not grow."""
        sync_file(self.folder / name)
        self._write(position)

    def remove(self, names: list[str], position: Position) -> None:
        """Forget files and delete them."""
        for name in names:
            self._lengths.pop(name, None)
        self._write(position)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _write(self, position: Position) -> None:
        self.position = position
        state: Position = {"files": dict(self._lengths), "position": position}
        write_text(self.folder / STATE_NAME, canonical_json(with_sha256(state)) + "\n")


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        return checked_content((folder / STATE_NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{STATE_NAME} {error}") from None
