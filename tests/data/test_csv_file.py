"""CSV: what is read, and every way in which a row may not fit its header."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.readers import read_documents
from roots_compress.errors import InputError


def texts(folder: Path, content: str | bytes, column: str = "text", name: str = "a.csv") -> list[str]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [document.text for document in read_documents(path, PlainTexts(column))]


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ("text,label\na,1,\nb,0,\n", ["a", "b"]),
        ("id,text,label\n7,a,pos,\n8,b,neg,,,\n", ["a", "b"]),
        ("text,label,\na,1,\nb,0,\n", ["a", "b"]),
        ("text,label,,\na,1\nb,0,,,,\n", ["a", "b"]),
        ("prompt,response,\np,r,\n", ["p\nr"]),
        ('text\n"Hello, world"\n"a, b"\n', ["Hello, world", "a, b"]),
        ('text,id\n"say ""no"", twice",1\n', ['say "no", twice']),
        ('text,id\n5" pipe,1\nhe said "no" twice,2\n', ['5" pipe', 'he said "no" twice']),
        ('text,id\n"C:\\new\\",1\na\\b,2\n', ["C:\\new\\", "a\\b"]),
        ('"text"\n"one\n\ntwo"\nthree\n', ["one\n\ntwo", "three"]),
        ('\ufeff"text",id\n"a",1\n', ["a"]),
        ("text,id\n\na,1\n  \n,\nb,2", ["a", "b"]),
        ("text,id\n,1\n  ,2\na,3\n", ["a"]),
        ("text,n\nNA,NA\nnull,\n007,1e5\nTrue,False\n", ["NA", "null", "007", "True"]),
        ("id,text,id,\n1,a,2,\n", ["a"]),
        ('"","text","id"\n"1","a",3\n"2","b",4\n', ["a", "b"]),
        ('"text","id"\n"1","a",3\n"2","b",4\n', ["a", "b"]),
        ("text,messages\na,\nb,not a chat\n", ["a", "b"]),
        ("text,prompt,response\n,p,r\na,,\nb,p,r\n", ["p\nr", "a", "b"]),
        ("text,id\na\u2028b\x0bc\x85d,1\n", ["a\u2028b\x0bc\x85d"]),
        ("title,body\n", []),
        ("", []),
    ],
)
def test_each_row_gives_its_own_text(tmp_path: Path, content: str, right: list[str]) -> None:
    assert texts(tmp_path, content) == right


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("text\nHello, world\nno comma here\n", 2, "2 fields, its header 1"),
        ("text\nno comma here\nHello, big world\n", 3, "2 fields, its header 1"),
        ("id,text\n1,a\n2\n", 3, "1 field, its header 2"),
        ("id,text,label\n1,a,x\n2,b\n", 3, "2 fields, its header 3"),
        ('id,text\n1,"a\nb"\n2,c,d,,\n', 4, "3 fields, its header 2"),
        ("text,id\na,,1\n", 2, "3 fields, its header 2"),
        ('text\none\n"two opens\nthree\n"four opens\nfive\n', 3, "follows a closing quote in line 5"),
        ('text\n"say \\"no, never\\" twice"\nfoo\n', 2, "follows a closing quote"),
        ('text,id\n"a" b,1\n', 2, "follows a closing quote"),
        ('text,id\n"a\\"",1\nb,2\n', 2, "never closed"),
        ('text\na\n"open\nb\n', 3, "never closed"),
        ("id,text,text\n1,a,b\n", 1, "2 columns are named 'text'"),
        ("id;text\n1;a\n", 2, "no column 'text'"),
        ('"text","id"\n"1","a",3\n"x","b",4\n', 3, "opens with 'x'"),
        ('"text","id"\n"1","a",3\n"b",4\n', 3, "opens with 'b'"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, content: str, line: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        texts(tmp_path, content)
    assert caught.value.where == f"{tmp_path / 'a.csv'}:{line}"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("id;text\n1;a\n", "semicolons"),
        ("id;text\n1;a, b\n", "semicolons"),
        ('"id";"text"\n"1";"a"\n', "semicolons"),
        ("id\ttext\n1\ta\n", r"\.tsv"),
        ('"id"\t"text"\n"1"\t"a"\n', r"\.tsv"),
        ("id|text\n1|a\n", "bars"),
    ],
)
def test_another_separator_is_recognised(tmp_path: Path, content: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        texts(tmp_path, content)


@pytest.mark.parametrize("name", ["a.tsv", "a.TSV"])
def test_tabs_separate_the_fields_of_tsv(tmp_path: Path, name: str) -> None:
    assert texts(tmp_path, 'text\tid\na, b\t1\n"c\td"\t2\t\n', name=name) == ["a, b", "c\td"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_those_of_unix_between_and_within_fields(tmp_path: Path, end: str) -> None:
    content = f'text,id{end}"a{end}{end}b",1{end}c,2{end}'
    assert texts(tmp_path, content) == ["a\n\nb", "c"]


@pytest.mark.parametrize(
    "cell",
    [str(10**30), "n/a", "2026-01-01", "{}", "1" * 5000, "nan", "0x1f", "\N{SNOWMAN}"],
)
def test_other_columns_are_not_looked_at(tmp_path: Path, cell: str) -> None:
    rows = "".join(f"the text of row {row},{cell if row % 2 else row}\n" for row in range(200))
    assert len(texts(tmp_path, "text,other\n" + rows)) == 200


def test_wide_tables_and_long_fields_are_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "word " * 200_000
    header = "text," + ",".join(f"c{column}" for column in range(3000))
    assert texts(tmp_path, f'{header}\n"{long}"{",1" * 3000}\n') == [long]
    assert csv.field_size_limit() == limit
