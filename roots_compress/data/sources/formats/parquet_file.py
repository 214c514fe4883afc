"""Parquet: only the columns that are read, some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from roots_compress.data.sources.formats.tables import BATCH_ROWS, columns_of, opened


def parquet_records(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row is, `FILE: row NUMBER`, and its values by the names of their columns.

    Values of other columns than these are left out as None.

    Raises:
        InputError: the file is no whole Parquet file, or a column that is read is named twice.
        OSError: the system refuses.
    """
    import pyarrow.parquet

    with opened(path) as source:
        file = pyarrow.parquet.ParquetFile(source, page_checksum_verification=True)
        found = columns_of(file.schema_arrow, columns, path)
        yield from found.records(path, file.iter_batches(batch_size=BATCH_ROWS, columns=found.read))
