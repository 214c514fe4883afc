"""Standard output and error that may be closed, full, gone, or lack a character in their encoding.

Standard output carries the result: if it cannot be written to, the program ends with exit code 1. Standard
error only shows progress: the work goes on without it.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT, STDERR = 1, 2


class OutputError(Exception):
    """Standard output cannot be written to. Not an OSError, so that no handler of file errors catches it."""


class _Stream(io.FileIO):
    """A standard stream that fails at most once: after the first failure it accepts and drops everything.

    Args:
        number: the file descriptor, which stays open.
        failing: whether the first failure is raised, as an `OutputError`.
    """

    def __init__(self, number: int, *, failing: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._failing = failing
        self.failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes, all of them, or drop them once it has failed."""
        rest = memoryview(data)
        size = rest.nbytes
        if self.failure is None:
            try:
                while rest:
                    # A pipe that does not block, as of some terminals and servers, answers None while full.
                    written = super().write(rest)
                    if written is None:
                        select.select([], [self], [])
                    else:
                        rest = rest[written:]
            except OSError as error:
                self.failure = error
                if self._failing:
                    raise OutputError from error
        return size


def run_on_streams(program: Callable[[], object]) -> NoReturn:
    """Run a program on the standard streams, and leave with its exit code.

    A character that a stream's encoding lacks is written as an escape of its number. A stream that is closed
    drops what is written, and the program goes on. So does standard error where it is full or its reader is
    gone; where standard output is, the program ends with exit code 1, and a message unless it is the reader
    that left.
    """
    _fill_descriptors()
    output = _Stream(STDOUT, failing=True)
    sys.stdout = _text(sys.stdout, output)
    sys.stderr = _text(sys.stderr, _Stream(STDERR, failing=False))
    code: str | int | None = None
    try:
        try:
            program()
        except SystemExit as ending:
            code = ending.code
        sys.stdout.flush()
    except OutputError:
        pass
    if output.failure is not None:
        code = code or 1
        if output.failure.errno != errno.EPIPE:
            sys.stderr.write(
                f"error: standard output: cannot be written: {output.failure.strerror}\n"
                "  Finished work is kept. Send the output where there is room for it.\n"
            )
    sys.stderr.flush()
    sys.exit(code)


def _fill_descriptors() -> None:
    """Open the null device for a closed standard descriptor, so that no other file gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            else:
                os.set_inheritable(number, True)


def _text(stream: TextIO | None, raw: _Stream) -> TextIO:
    """Return a text stream over `raw` with the settings of the one that it replaces.

    A stream that was put in the place of a standard one, as a test's, stays. So does a console of Windows,
    whose characters do not go through a descriptor.
    """
    if stream is None:  # Closed when Python started. Whatever has its number now is not a standard stream.
        return io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.devnull, "wb")), encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper) or _number(stream) != raw.fileno():
        return stream
    stream.flush()
    if os.name == "nt" and stream.isatty():
        stream.reconfigure(errors="backslashreplace")
        return stream
    # The text's own buffer is enough. One of bytes would write again what a signal's handler, raising within
    # `write`, let it believe unwritten.
    return io.TextIOWrapper(
        raw,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _number(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:  # io.UnsupportedOperation: not of a file
        return None
