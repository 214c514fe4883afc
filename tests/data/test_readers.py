"""Files to documents: every format, and every way a file can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roots_compress.data.chat.rendering import rendered
from roots_compress.data.documents import Document, Span
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.readers import read_documents
from roots_compress.errors import InputError

CHAT = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
]
CHAT_SPANS = (
    Span("<|im_start|>user\n", False),
    Span("2 + 2?<|im_end|>", False),
    Span("\n<|im_start|>assistant\n", False),
    Span("4<|im_end|>", True),
)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(path: Path, *records: Any) -> Path:
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def texts(path: Path, column: str = "text") -> list[str]:
    return [document.text for document in read_documents(path, PlainTexts(column))]


@pytest.mark.parametrize("suffix", [".txt", ".md", ".RST"])
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", "\ufeffone\r\ntwo\rthree\n\nfour")
    assert texts(path) == ["one\ntwo\nthree\n\nfour"]


def test_csv_text_stays_as_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\n1,NA\n2,"two\n\nlines, ""quoted"""\n3,\n4,007\n')
    assert texts(path) == ["NA", 'two\n\nlines, "quoted"', "007"]


def test_a_csv_column_of_digits_is_text(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.csv", "text,id\n007,1\n1.0,2\n")) == ["007", "1.0"]


def test_the_column_can_be_named(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.csv", "text,body\na,b\n"), "body") == ["b"]


def test_a_path_is_not_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a1.csv", "text\nother\n")
    assert texts(write(tmp_path / "a[1].csv", "text\nthis\n")) == ["this"]


def test_parquet_reads_text_and_chats(tmp_path: Path) -> None:
    assert texts(parquet(tmp_path / "text.parquet", id=[1, 2, 3], text=["a", None, "c"])) == ["a", "c"]
    chats = parquet(tmp_path / "chat.parquet", messages=[CHAT])
    assert list(rendered(read_documents(chats))) == [Document(CHAT_SPANS)]


def test_jsonl_skips_blank_lines_and_records(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "a\\u2028b"}\n\n{"text": " "}\n{"text": null}\n{"text": NaN}\n{"text": "c", "x": 1}',
    )
    assert texts(path) == ["a\u2028b", "c"]


def test_only_the_response_is_scored(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl", {"prompt": "2 + 2?", "response": "4"}, {"prompt": "Say ", "response": "hi"}
    )
    assert read_documents(path) == [
        Document((Span("2 + 2?\n", False), Span("4", True))),
        Document((Span("Say ", False), Span("hi", True))),
    ]


def test_only_assistant_turns_and_their_ends_are_scored(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"messages": CHAT})
    assert list(rendered(read_documents(path))) == [Document(CHAT_SPANS)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5_000, "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"text": 3}', "'text' is int, not text"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"body": "b", "title": "t"}', "the columns are 'body', 'title'"),
        ('{"prompt": "p", "answer": "a"}', "no 'prompt' with 'response'"),
        ('{"messages": "hi"}', "not a list"),
        ('{"messages": ["hi"]}', "not an object"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "no turn of the role 'assistant'"),
        ('{"messages": [{"role": "assistant", "content": [1]}]}', "'content' is list, not text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "good"}\n' + line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        read_documents(path)
    assert caught.value.where == f"{path}:2"
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_missing_column_names_those_there_are(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.csv", "title,body\na,b\n")
    parquet(tmp_path / "a.parquet", title=["a"], body=["b"])
    with pytest.raises(InputError, match="the columns are 'title', 'body'") as caught:
        read_documents(path.with_name(name))
    assert "data.text_column" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\n\xff\n", "0xff is not UTF-8"),
        ("a.txt", b"good\n\x00\n", "zero byte"),
        ("a.csv", b"text,b\n\xff,1\n", "0xff is not UTF-8"),
        ("a.csv", b"text,b\na,1\nb,2,3\n", r"a\.csv:3: the row has 3 fields, its header 2"),
        ("a.csv", b'text\n"open\n', "malformed"),
        ("a.parquet", b"PAR1 no more", "malformed"),
        ("a.parquet", b"", "malformed"),
        ("a.py", b"print('x')", "'.py'"),
        ("a.zip", b"PK\x03\x04", "'.zip'"),
        ("a", b"text", "''"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_documents(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(InputError, match="not a regular file"):
        read_documents(tmp_path / "a.txt")


def test_reading_a_table_uses_no_network_and_leaves_the_home_alone(tmp_path: Path) -> None:
    """In a process of its own, with nothing set that would keep the libraries offline."""
    home = tmp_path / "home"
    home.mkdir()
    write(tmp_path / "a.csv", "text\na\n")
    parquet(tmp_path / "a.parquet", text=["a"])
    program = (
        "import sys\n"
        "calls = []\n"
        "sys.addaudithook(lambda event, _: calls.append(event) if event.startswith('socket.') else None)\n"
        "from pathlib import Path\n"
        "from roots_compress.data.sources.readers import read_documents\n"
        f"for name in ('a.csv', 'a.parquet'): read_documents(Path({str(tmp_path)!r}) / name)\n"
        "print([call for call in calls if call in ('socket.connect', 'socket.getaddrinfo', 'socket.bind')])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment["HOME"] = str(home)
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
    assert list(home.iterdir()) == []
