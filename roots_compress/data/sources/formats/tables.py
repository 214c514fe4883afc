"""What Parquet and Arrow files have in common: batches of columns, and what `datasets` says of these."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from roots_compress.data.sources.files import kind_of, read_bytes
from roots_compress.data.sources.records import NamedNumber, refuse_repeated
from roots_compress.errors import InputError

BATCH_ROWS = 1024
FEATURES = b"huggingface"
"""Under which `datasets` says in a file what its columns hold, and what its numbers of labels are called."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
        names: of all of them.
        read: of those that are read; values of the others are left out as None.
        features: what `datasets` says of them; None where it says nothing that can be read.
    """

    names: Sequence[str]
    read: Sequence[str]
    features: Any

    def records(self, path: Path, batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield where each row is, `FILE: row NUMBER`, and its values by the names of their columns.

        Args:
            path: the file.
            batches: of Arrow, of the columns that are read, none of them large.
        """
        number, blank = 0, dict[str, Any].fromkeys(self.names)
        for batch in batches:
            for row in batch.to_pylist() if self.read else [{}] * batch.num_rows:
                number += 1
                yield f"{path}: row {number}", {**blank, **_named(row, self.features)}


def columns_of(schema: Any, wanted: Collection[str], path: Path) -> Columns:
    """Return the columns of a file, by its schema and the names of those that may be read.

    Raises:
        InputError: a column that is read is named twice.
    """
    names = schema.names
    refuse_repeated(names, wanted, str(path))
    read = [name for name in dict.fromkeys(names) if name in wanted]
    return Columns(names, read, _features(schema.metadata or {}))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for Arrow to read through, unpacked in memory where it is compressed.

    Arrow reads no path, which may hold bytes that it takes for no text.

    Raises:
        InputError: in the block: what Arrow says of a damaged file, or a batch does not fit in memory.
        OSError: the system refuses.
    """
    import pyarrow

    try:
        with path.open("rb") as file:
            yield io.BytesIO(read_bytes(path, is_text=False)) if kind_of(path)[1] else file
    except MemoryError as error:
        raise InputError("its rows do not fit in memory", where=path, remedy="Split it.") from error
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not Arrow's
            raise
        raise InputError(
            f"the file is malformed: {str(error).strip()}", where=path, remedy="Repair it, or export it anew."
        ) from error


def _features(metadata: Mapping[bytes, bytes]) -> Any:
    try:
        return json.loads(metadata[FEATURES])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _named(value: Any, feature: Any) -> Any:
    """Return a value of a row in which each number that the file names has its names with it."""
    if isinstance(value, dict) and isinstance(feature, dict):
        return {key: _named(each, feature.get(key)) for key, each in value.items()}
    if isinstance(value, list) and isinstance(feature, dict | list) and feature:
        inner = feature[0] if isinstance(feature, list) else feature.get("feature")
        return [_named(each, inner) for each in value]
    if type(value) is int and isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            value = NamedNumber(value)
            value.names = tuple(names)
    return value
