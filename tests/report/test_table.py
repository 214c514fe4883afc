"""A table in terminals of several widths."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from roots_compress.report.table import Table, table_of

HEADINGS = ("stage", "parameters", "perplexity", "prefill tok/s", "decode gain", "seconds")
ROWS = (
    ("baseline", "134,515,008", "12.806", "26966 / 20858", "1.00x", "3.3"),
    ("quantize", "114,608,448", "15.037", "973 / 859", "2.37x", "246.8"),
)
TABLE = table_of("smollm2", HEADINGS, ROWS, "Speed: batch 1, medians of 5 interleaved repeats.")


def printed(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "tables"), [(80, 1), (76, 1), (60, 2), (40, 3), (31, 4)])
def test_no_cell_is_cut_where_the_terminal_is_narrow(width: int, tables: int) -> None:
    text = printed(TABLE, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("baseline") == tables, text
    shown = re.split(r"\s*[│┃]\s*", text.replace("\n", "│"))
    assert {cell for row in ROWS for cell in row} <= {*shown}
    assert {word for heading in HEADINGS for word in heading.split()} <= {*" ".join(shown).split()}


def test_a_column_without_content_gives_way_to_others() -> None:
    plan = table_of("Plan", ("stage", "work", "checks", "disk"), [("prune", "", "", "917 MB")])
    assert "checks" in printed(plan, 80)
    assert "checks" not in printed(plan, 30)
    assert printed(plan, 30).count("prune") == 1
    assert "917 MB" in printed(plan, 30)


def test_title_and_caption_are_said_once() -> None:
    text = " ".join(printed(TABLE, 40).split())
    assert text.count("smollm2") == text.count("Speed: batch 1, medians of 5 interleaved repeats.") == 1


def test_texts_that_are_compared_side_by_side_are_folded() -> None:
    long = "a text of many words that no terminal of this width can hold"
    text = printed(table_of("Settings", ("setting", "one", "two"), [("data", long, long)], names=3), 50)
    assert text.count("data") == 1
    assert max(map(len, text.splitlines())) <= 50


def test_a_line_goes_before_a_section() -> None:
    rows = [("a", "1"), ("b", "2"), ("c", "3")]
    lines = printed(table_of("Plan", ("row", "size"), rows, section=2), 80).splitlines()
    assert [line[0] for line in lines].count("├") == 1
    assert lines.index(next(line for line in lines if line[0] == "├")) == len(lines) - 3
