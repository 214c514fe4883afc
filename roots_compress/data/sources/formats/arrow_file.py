"""Arrow's own files: streams as `datasets` writes them, and files with an index, which Feather's are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from roots_compress.data.sources.formats.tables import BATCH_ROWS, columns_of, opened
from roots_compress.errors import InputError

WITH_INDEX, OLD_FEATHER = b"ARROW1", b"FEA1"
"""How files with an index begin; streams begin with neither."""


def arrow_records(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row is, `FILE: row NUMBER`, and its values by the names of their columns.

    Values of other columns than these are left out as None.

    Raises:
        InputError: the file is no whole Arrow file, or a column that is read is named twice.
        OSError: the system refuses.
    """
    import pyarrow

    with opened(path) as source:
        opening = source.read(len(WITH_INDEX))
        source.seek(0)
        if opening.startswith(OLD_FEATHER):
            raise InputError(
                "is a Feather file of version 1",
                where=path,
                remedy="Write it anew with pyarrow.",
            )
        is_indexed = opening == WITH_INDEX
        open_file = pyarrow.ipc.open_file if is_indexed else pyarrow.ipc.open_stream
        found = columns_of(open_file(source).schema, columns, path)
        source.seek(0)
        places = [found.names.index(name) for name in found.read]
        reader = open_file(source, options=pyarrow.ipc.IpcReadOptions(included_fields=places))
        yield from found.records(path, _small_batches(reader, is_indexed=is_indexed))


def _small_batches(reader: Any, *, is_indexed: bool) -> Iterator[Any]:
    """Yield some rows at a time, after a check that they lie within the file's bytes."""
    numbers = range(reader.num_record_batches) if is_indexed else ()
    for batch in map(reader.get_batch, numbers) if is_indexed else reader:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)
