"""Parquet: only the columns that are read, some rows at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from roots_compress.data.sources.files import kind_of, read_bytes
from roots_compress.data.sources.records import NamedNumber, refuse_repeated
from roots_compress.errors import InputError

BATCH_ROWS = 1024
FEATURES = b"huggingface"
"""Under which `datasets` says in a file what its columns hold, and what its numbers of labels are called."""


def parquet_records(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row is, `FILE: row NUMBER`, and its values by the names of their columns.

    Values of other columns than these are left out as None.

    Raises:
        InputError: the file is no whole Parquet file, or a column that is read is named twice.
        OSError: the system refuses.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with path.open("rb") as opened:
            # Arrow reads through the open file: a path may hold bytes that it takes for no text.
            compressed = kind_of(path)[1] != ""
            source = io.BytesIO(read_bytes(path, is_text=False)) if compressed else opened
            file = pyarrow.parquet.ParquetFile(source, page_checksum_verification=True)
            names = file.schema_arrow.names
            wanted = [name for name in dict.fromkeys(names) if name in columns]
            refuse_repeated(names, columns, str(path))
            blank: dict[str, Any] = dict.fromkeys(names)
            features = _features(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                for row in batch.to_pylist() if wanted else [{}] * batch.num_rows:
                    number += 1
                    yield f"{path}: row {number}", {**blank, **_named(row, features)}
    except MemoryError as error:
        raise InputError("its rows do not fit in memory", where=path, remedy="Split it.") from error
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not Arrow's
            raise
        raise InputError(
            f"the file is malformed: {str(error).strip()}", where=path, remedy="Repair it, or export it anew."
        ) from error


def _features(metadata: Mapping[bytes, bytes]) -> Any:
    """Return what `datasets` says of the columns of a file; None where it says nothing that can be read."""
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
