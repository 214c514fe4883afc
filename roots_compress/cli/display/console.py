"""The two consoles of the command line, and how failures look on them."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from roots_compress.errors import RootsError, printable

if TYPE_CHECKING:  # Imported late, so that help does not wait for it.
    from rich.console import Console

PIPED_WIDTH = 200
"""Columns of a table that is not on a terminal, so that it is not folded."""


MOST_CHARACTERS = 4000
"""Most characters of a message: text from a file may be long."""


def stdout() -> Console:
    """Return the console for tables, on standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def rendered(items: Iterable[Any]) -> str:
    """Return tables as `stdout` prints them into a pipe."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, highlight=False, width=PIPED_WIDTH).print(*items)
    return text.getvalue()


def write(text: str) -> None:
    """Write text to standard output immediately and unchanged."""
    # Not by typer.echo, which removes escape sequences from output to a pipe.
    sys.stdout.write(text)
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a line of results."""
    if sys.stdout.isatty():
        print_line(stdout(), text)
    else:
        write(printable(text) + "\n")


def print_line(console: Console, text: str) -> None:
    """Print a line: folded between words on a narrow terminal, otherwise in one piece."""
    from rich.text import Text

    shown = printable(text)
    if console.file.isatty():
        shown = "\n".join(part for line in shown.split("\n") for part in _folded(line, console.width))
    console.print(Text(shown), soft_wrap=True)


def _folded(line: str, width: int) -> Iterator[str]:
    """Yield a line in parts of a width; a longer word, such as a path, stays whole and can be copied."""
    from rich.cells import cell_len

    part = ""
    for word in re.findall(r"\s*\S+", line):
        if part and cell_len(part + word) > width:
            yield part
            part = word.lstrip()
        else:
            part += word
    yield part


def write_pieces(pieces: Iterable[str]) -> None:
    """Write text that comes in pieces: to a terminal without control characters, elsewhere as it is."""
    if not sys.stdout.isatty():
        for piece in pieces:
            write(piece)
        return
    held = ""  # A carriage return, which does no harm before a line feed.
    for piece in pieces:
        text = (held + piece).replace("\r\n", "\n")
        held = "\r" if text.endswith("\r") else ""
        write(printable(text.removesuffix(held)))
    write(printable(held))


def stderr() -> Console:
    """Return the console for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def show_error(error: RootsError) -> None:
    """Write `error: where: what`, then the remedy, without markup and without a traceback."""
    where = f"{error.where}: " if error.where else ""
    message = error.message
    if len(message) > MOST_CHARACTERS:
        message = f"{message[:MOST_CHARACTERS]}... ({len(message)} characters)"
    lines = [f"error: {where}{message}", *(f"  {line}" for line in (error.remedy or "").splitlines())]
    warn("\n".join(lines))


def warn(text: str) -> None:
    """Write lines to standard error, without markup."""
    if sys.stderr.isatty():
        print_line(stderr(), text)
    else:
        sys.stderr.write(printable(text) + "\n")
