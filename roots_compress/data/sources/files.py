"""The bytes and the text of a data file, unpacked where it is compressed."""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, cast

from roots_compress.errors import InputError
from roots_compress.io.encodings import encoding_of

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst")
LINES_SUFFIXES = (".jsonl", ".ndjson")
ARROW_SUFFIXES = (".arrow", ".feather")
SUFFIXES = (*TEXT_SUFFIXES, ".csv", ".tsv", *LINES_SUFFIXES, ".json", ".parquet", *ARROW_SUFFIXES)
COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")

CHUNK_BYTES = 1 << 20
"""Read at a time, so that a large file that is not text is refused early."""
FREE_BYTES, MOST_EXPANSION = 1 << 26, 200
"""A compressed file may unpack to 64 MB, or to 200 times its size: text that says anything shrinks less."""
REMEDY = "Save the file as UTF-8 text."


def kind_of(path: Path) -> tuple[str, str]:
    """Return the ending that says what a file holds, and the one that says how it is compressed, or ''.

    `a.jsonl.gz` gives `.jsonl` and `.gz`; both are in lower case.
    """
    suffix = path.suffix.lower()
    if suffix in COMPRESSED_SUFFIXES:
        return Path(path.stem).suffix.lower(), suffix
    return suffix, ""


def is_data(path: Path) -> bool:
    """Return whether a file's name is that of a kind that is read."""
    return kind_of(path)[0] in SUFFIXES


def read_bytes(path: Path, *, is_text: bool) -> bytes:
    """Return what a file holds, unpacked.

    Args:
        path: a regular file.
        is_text: a zero byte ends the reading, wherever it is found.

    Raises:
        InputError: it is text with a zero byte, a damaged archive, one that unpacks to far more than text
            does, or more than fits in memory.
        OSError: the system refuses.
    """
    try:
        return b"".join(_text_chunks(path) if is_text else _chunks(path))
    except MemoryError as error:
        raise InputError(
            f"{path.stat().st_size} bytes of text do not fit in memory", where=path, remedy="Split it."
        ) from error


def read_text(path: Path) -> str:
    """Return a file's text, its line ends those of Unix, without a byte order mark.

    Raises:
        InputError: it is no UTF-8 text, or `read_bytes` refuses it.
        OSError: the system refuses.
    """
    raw = read_bytes(path, is_text=True)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, path, 0) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a file's text with their ends, as `read_text` gives them; only `\n` ends one.

    The memory that it takes is that of the longest line.

    Raises:
        InputError, OSError: as `read_text` does, where the fault is reached.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    lines_before, held = 0, ""  # `held` is a carriage return whose line feed may follow.
    begun: list[str] = []  # The line that no end was found of yet.
    for chunk in chain(_text_chunks(path), [b""]):
        try:
            text = held + decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_utf8(error, path, lines_before) from error
        lines_before += chunk.count(b"\n")
        held = "\r" if chunk and text.endswith("\r") else ""
        if "\r" in text:
            text = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
        for line in lines_of(text):
            begun.append(line)
            if line.endswith("\n"):
                yield "".join(begun)
                begun.clear()
    if begun:
        yield "".join(begun)


def lines_of(text: str) -> Iterator[str]:
    r"""Yield the lines of a text with their ends; only `\n` ends one."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield what a file holds, unpacked, in pieces."""
    size, compression = path.stat().st_size, kind_of(path)[1]
    if size == 0:
        return
    most, unpacked = max(FREE_BYTES, MOST_EXPANSION * size), 0
    with ExitStack() as stack:
        source = stack.enter_context(_unpacking(stack.enter_context(path.open("rb")), compression))
        while chunk := _next_chunk(source, path, compression):
            unpacked += len(chunk)
            if compression and unpacked > most:
                raise InputError(
                    f"its {size:,} bytes unpack to more than {most:,}, which no text does",
                    where=path,
                    remedy="Unpack it yourself if you trust it, and name the unpacked file.",
                )
            yield chunk


def _unpacking(file: IO[bytes], compression: str) -> IO[bytes]:
    match compression:
        case ".gz":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        case ".bz2" | ".zst":
            import pyarrow

            # Python's own reader of bz2 takes what follows a stream and is none for the end of the file.
            codec = "bz2" if compression == ".bz2" else "zstd"
            return cast("IO[bytes]", pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), codec))
        case ".xz":
            return cast("IO[bytes]", _Xz(file))
        case _:
            return file


class _Xz(io.RawIOBase):
    """A file in xz. Python's own reader takes what follows a stream, and is none, for the end of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._stream = file, lzma.LZMADecompressor(lzma.FORMAT_XZ)

    def read(self, count: int = -1, /) -> bytes:
        """Return up to so many bytes, none at the end."""
        while True:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data
                while not (packed := packed.lstrip(b"\0")):  # Zeros may stand between streams.
                    if not (packed := self._file.read(CHUNK_BYTES)):
                        return b""
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
            elif self._stream.needs_input and not (packed := self._file.read(CHUNK_BYTES)):
                raise EOFError("it ends within a stream")
            if unpacked := self._stream.decompress(packed, count):
                return unpacked


def _next_chunk(source: IO[bytes], path: Path, compression: str) -> bytes:
    try:
        return source.read(CHUNK_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        # The system's own refusals carry a number; what a decompressor says does not.
        if not compression or (isinstance(error, OSError) and error.errno):
            raise
        raise InputError(
            f"the compressed file is damaged or cut short: {error}",
            where=path,
            remedy="Copy or download it again.",
        ) from error


def _text_chunks(path: Path) -> Iterator[bytes]:
    """Yield what a file holds in pieces, as long as these have no zero byte."""
    first, lines = b"", 1
    for chunk in _chunks(path):
        first = first or chunk[:4]
        if b"\0" in chunk:
            if (encoding := encoding_of(first)) is not None:
                raise InputError(f"the text is {encoding}, not UTF-8", where=path, remedy=REMEDY)
            line = lines + chunk.count(b"\n", 0, chunk.index(b"\0"))
            raise InputError("a zero byte: this is not text", where=f"{path}:{line}", remedy=REMEDY)
        lines += chunk.count(b"\n")
        yield chunk


def _not_utf8(error: UnicodeDecodeError, path: Path, lines_before: int) -> InputError:
    """Return what is told of bytes that are not UTF-8; `lines_before` are those before what was decoded."""
    raw = error.object
    if lines_before == 0 and (encoding := encoding_of(raw)) is not None:
        return InputError(f"the text is {encoding}, not UTF-8", where=path, remedy=REMEDY)
    line = lines_before + raw.count(b"\n", 0, error.start) + 1
    return InputError(f"byte {raw[error.start]:#04x} is not UTF-8", where=f"{path}:{line}", remedy=REMEDY)
