"""Shards: files of texts with their sources, written some megabytes at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from roots_compress.io.atomic import sync_file
from roots_compress.io.disk import file_sha256
from roots_compress.results import Json

BATCH_BYTES = 1 << 22
"""Text that is compressed at a time: a row group of Parquet."""
ENDINGS = {"parquet": ".parquet", "jsonl": ".jsonl.zst"}


class Shard:
    """A shard that is being written.

    Args:
        path: with the ending of its format; replaced where it exists.
    """

    def __init__(self, path: Path, form: Literal["parquet", "jsonl"]) -> None:
        self._path = path
        self._rows: list[tuple[str, str]] = []
        self._waiting_bytes = 0
        self.documents, self.text_bytes = 0, 0
        open_shard = _parquet if form == "parquet" else _jsonl
        self._write, self._close = open_shard(path)

    def add(self, text: str, source: str, size: int) -> None:
        """Add a document of `size` bytes."""
        self._rows.append((text, source))
        self._waiting_bytes += size
        self.documents += 1
        self.text_bytes += size
        if self._waiting_bytes >= BATCH_BYTES:
            self._flush()

    def finish(self) -> dict[str, Json]:
        """Write what is left, sync the file, and return what the datasheet says of it."""
        self._flush()
        self._close()
        sync_file(self._path)
        return {
            "name": self._path.name,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "bytes": self._path.stat().st_size,
            "sha256": file_sha256(self._path),
        }

    def abandon(self) -> None:
        """Close the file as it is."""
        self._close()

    def _flush(self) -> None:
        if self._rows:
            self._write(self._rows)
        self._rows, self._waiting_bytes = [], 0


Writer = tuple[Callable[[list[tuple[str, str]]], None], Callable[[], None]]


def _parquet(path: Path) -> Writer:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("text", pyarrow.large_string()), ("source", pyarrow.string())])
    file = path.open("wb")  # By the path itself pyarrow looks for another name where the locale is not UTF-8.
    writer = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)

    def write(rows: list[tuple[str, str]]) -> None:
        columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
        writer.write_table(pyarrow.table(dict(zip(schema.names, columns, strict=True)), schema=schema))

    def close() -> None:
        with file:
            writer.close()

    return write, close


def _jsonl(path: Path) -> Writer:
    import pyarrow

    file = path.open("wb")
    compressed = pyarrow.CompressedOutputStream(pyarrow.PythonFile(file), "zstd")

    def write(rows: list[tuple[str, str]]) -> None:
        lines = (json.dumps({"text": text, "source": source}, ensure_ascii=False) for text, source in rows)
        compressed.write("".join(f"{line}\n" for line in lines).encode())

    def close() -> None:
        with file:
            compressed.close()

    return write, close
