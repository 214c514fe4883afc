"""Parquet: only the columns that are read, some rows at a time."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from roots_compress.data.sources.files import kind_of, read_bytes
from roots_compress.data.sources.records import refuse_repeated
from roots_compress.errors import InputError

BATCH_ROWS = 1024


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
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                for row in batch.to_pylist() if wanted else [{}] * batch.num_rows:
                    number += 1
                    yield f"{path}: row {number}", {**blank, **row}
    except MemoryError as error:
        raise InputError("its rows do not fit in memory", where=path, remedy="Split it.") from error
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not Arrow's
            raise
        raise InputError(
            f"the file is malformed: {str(error).strip()}", where=path, remedy="Repair it, or export it anew."
        ) from error
