"""A table for the terminal; if it is too wide, it is shown as several, one below the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from roots_compress.errors import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

BORDER, AROUND = 1, 3
"""Characters of the left border, and those around each cell with the border at its right."""
Part = tuple[list[int], list[int] | None]
"""The columns of one table, and their widths; without widths rich folds cells."""


@dataclass(frozen=True)
class Table:
    """Rows below headings; rich prints them.

    A terminal that is narrower than the table first gets headings of several lines, then several tables. Each
    begins with the columns of names, so that no cell is cut within a word or a number. Columns without any
    content are then left out.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    names: int = 1
    """Columns at the left that hold names."""
    section: int | None = None
    """The row before which a line is drawn."""

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RichTable | Text]:
        for number, (columns, widths) in enumerate(self._parts(options.max_width)):
            table = RichTable(title=None if number else _literal(self.title))
            for place, column in enumerate(columns):
                table.add_column(
                    _literal(self.headings[column]),
                    justify="left" if column < self.names else "right",
                    overflow="fold",
                    width=None if widths is None else widths[place],
                )
            for index, row in enumerate(self.rows):
                if index == self.section:
                    table.add_section()
                table.add_row(*(_literal(row[column]) for column in columns))
            yield table
        if self.caption:
            yield Text(printable(self.caption), style="table.caption")

    def _parts(self, most: int) -> Iterator[Part]:
        """Yield the tables that fit into so many characters."""
        every, names = range(len(self.headings)), list(range(self.names))
        cells = [max((cell_len(printable(row[column])) for row in self.rows), default=0) for column in every]
        words = [max(map(cell_len, printable(self.headings[column]).split()), default=0) for column in every]
        least = [max(pair) for pair in zip(cells, words, strict=True)]
        full = [
            max(cells[column], cell_len(printable(heading))) for column, heading in enumerate(self.headings)
        ]
        if _total(full) <= most or len(names) == len(full):
            yield [*every], None
            return
        part = names
        for column in (each for each in every[self.names :] if cells[each]):
            if len(part) > len(names) and _total([least[each] for each in (*part, column)]) > most:
                yield part, _chosen(part, full, least, most)
                part = names
            part = [*part, column]
        yield part, _chosen(part, full, least, most)


def table_of(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
    *,
    names: int = 1,
    section: int | None = None,
) -> Table:
    """Return a table, whose first columns hold names."""
    return Table(title, tuple(headings), tuple(map(tuple, rows)), caption, names, section)


def _total(widths: Sequence[int]) -> int:
    return sum(width + AROUND for width in widths) + BORDER


def _chosen(columns: list[int], full: Sequence[int], least: Sequence[int], most: int) -> list[int] | None:
    """Return the first of some widths with which the columns fit, if there are any."""
    own = ([widths[column] for column in columns] for widths in (full, least))
    return next((widths for widths in own if _total(widths) <= most), None)


def _literal(text: str) -> str:
    """Return a file's text for a rich table, without markup and control characters."""
    return escape(printable(text))
