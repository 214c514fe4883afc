"""Parts of what a teacher writes before a training, kept as they are written.

    work/NAME/00000.json    a part, what it depends on, and a hash of both

An interrupted writing goes on after its last part, and nothing is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from roots_compress.errors import StageError
from roots_compress.io.atomic import disk_errors, read_regular, write_text
from roots_compress.results import Json
from roots_compress.run.keys import checked_content, with_sha256

_MAX_BYTES = 1 << 28


class KeptParts:
    """The parts of one text.

    Args:
        folder: where they are kept; it is made with the first.
        identity: everything that the text depends on.
    """

    def __init__(self, folder: Path, identity: dict[str, Json]) -> None:
        self._folder, self._identity = folder, identity
        self._next = 0

    def read(self) -> Iterator[Json]:
        """Yield the parts that are there, up to the first that is missing, damaged or of another text."""
        while (part := self._read_next()) is not None:
            self._next += 1
            yield part

    def add(self, part: Json) -> None:
        """Keep the part after those that were read or added, durably.

        Raises:
            StageError: the disk failed.
        """
        content: dict[str, Json] = {"identity": self._identity, "part": part}
        with disk_errors(self._path, StageError):
            self._folder.mkdir(exist_ok=True)
            # On one line: a token a line would take twice the room.
            write_text(self._path, json.dumps(with_sha256(content), separators=(",", ":")) + "\n")
        self._next += 1

    def _read_next(self) -> Json:
        try:
            content = checked_content(read_regular(self._path, _MAX_BYTES))
            return content["part"] if content["identity"] == self._identity else None
        except (OSError, ValueError, KeyError):
            return None

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._next:05d}.json"
