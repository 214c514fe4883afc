"""JSON and Parquet: which of a record's values are its text, and what other values do not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roots_compress.data.chat.rendering import rendered
from roots_compress.data.sources.readers import read_documents
from roots_compress.errors import InputError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
CHAT_TEXT = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>"

RECORDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"text": None, "prompt": "p", "response": "r"}, ["p\nr"]),
    ({"text": " ", "prompt": "p", "response": "r"}, ["p\nr"]),
    ({"text": "t", "prompt": "p", "response": "r"}, ["t"]),
    ({"text": "t", "prompt": 3, "response": None, "messages": "x"}, ["t"]),
    ({"text": None, "prompt": None, "response": None, "messages": CHAT}, [CHAT_TEXT]),
    ({"prompt": "p", "response": "", "messages": CHAT}, [CHAT_TEXT]),
    ({"prompt": None, "response": "r"}, ["r"]),
    ({"text": None, "messages": None}, []),
    ({"text": ""}, []),
]


@pytest.mark.parametrize(("record", "right"), RECORDS)
def test_the_values_that_are_there_decide(tmp_path: Path, record: dict[str, Any], right: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    assert [document.text for document in rendered(read_documents(path))] == right


def test_a_table_may_mix_them(tmp_path: Path) -> None:
    names = ("text", "prompt", "response", "messages")
    rows = [record for record, _ in RECORDS if record.get("messages") != "x" and record.get("prompt") != 3]
    pq.write_table(
        pa.Table.from_pylist([{n: row.get(n) for n in names} for row in rows]), tmp_path / "a.parquet"
    )
    got = [document.text for document in rendered(read_documents(tmp_path / "a.parquet"))]
    assert got == ["p\nr", "p\nr", "t", CHAT_TEXT, CHAT_TEXT, "r"]


@pytest.mark.parametrize(
    "other",
    [
        "1" * 5000,
        "-" + "9" * 5000,
        "1e999",
        "NaN",
        "null",
        '{"a": {"text": 3}, "a": 1}',
        '[[], {}, "x"]',
        '"x"',
    ],
)
def test_other_values_do_not_matter(tmp_path: Path, other: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "t", "other": {other}}}\n{{"other": 3, "text": "u", "more": {other}}}\n')
    assert [document.text for document in read_documents(path)] == ["t", "u"]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"text": "a", "text": "b"}', "text"),
        ('{"te\\u0078t": "a", "text": null}', "text"),
        ('{"prompt": "a", "prompt": "b", "response": "r"}', "prompt"),
        ('{"messages": [], "messages": []}', "messages"),
        ('{"messages": [{"role": "assistant", "content": "a", "content": "b"}]}', "content"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, line: str, key: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good", "x": 1, "x": 2}\n' + line)
    with pytest.raises(InputError, match=f"'{key}' is given twice") as caught:
        read_documents(path)
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"}, {"text": "b"}]',
        ' [\n  {"text": "a"},\n  {"text": null},\n  {"text": "b"}\n]\n',
        '{"text": "a"}\n{"text": "b"}\n',
        '{\n "text": "a"\n}\n{\n "text": "b"\n}',
    ],
)
def test_a_json_file_holds_an_array_or_a_sequence(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert [document.text for document in read_documents(tmp_path / "a.json")] == ["a", "b"]


@pytest.mark.parametrize("content", ["", " \n", "[]", "[ \n ]"])
def test_a_json_file_may_be_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_documents(tmp_path / "a.json") == []


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ('[{"text": "a"},\n3]', 2, "not a JSON object"),
        ('[{"text": "a"},\n{"text": 3}]', 2, "'text' is int"),
        ('[{"text": "a"}\n{"text": "b"}]', 2, "a comma is missing"),
        ('[{"text": "a"},\n', 2, "cut short"),
        ('[{"text": "a"}', 1, "cut short"),
        ('[{"text": "a"}]\nmore', 1, "text follows"),
        ('[\n{"text": tru}]', 2, "not JSON"),
        ('{"version": 1,\n"data": []}', 1, "the columns are 'version', 'data'"),
        ("[" * 100_000, 1, "not JSON"),
        ('"x"', 1, "not a JSON object"),
    ],
)
def test_a_bad_json_file_is_named_with_its_line(
    tmp_path: Path, content: str, line: int, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_documents(path)
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b"]),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array(["a", None, "b"]).dictionary_encode(),
    ],
)
def test_parquet_spells_text_in_several_ways(tmp_path: Path, column: pa.Array) -> None:
    other = pa.array([{"deep": [1]}, None, {"deep": []}])
    pq.write_table(
        pa.table({"text": column, "other": other, "wide": [10**15, None, 1]}), tmp_path / "a.parquet"
    )
    assert [document.text for document in read_documents(tmp_path / "a.parquet")] == ["a", "b"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([["a"], ["b"]]), "row 1: 'text' is list"),
        (pa.array([None, 3]), "row 2: 'text' is int"),
        (pa.array([b"a", b"b"]), "row 1: 'text' is bytes"),
        (pa.array([{"a": "b"}, None]), "row 1: 'text' is dict"),
    ],
)
def test_a_parquet_column_that_is_no_text_is_refused(tmp_path: Path, column: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        read_documents(tmp_path / "a.parquet")


@pytest.mark.parametrize("schema", [[], [("n", pa.int64())], [("text", pa.null())], [("text", pa.string())]])
def test_a_parquet_shard_may_be_empty(tmp_path: Path, schema: list[tuple[str, pa.DataType]]) -> None:
    pq.write_table(pa.schema(schema).empty_table(), tmp_path / "a.parquet")
    assert read_documents(tmp_path / "a.parquet") == []


def test_a_parquet_column_of_nulls_is_blank(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "a.parquet")
    assert read_documents(tmp_path / "a.parquet") == []


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="2 columns are named 'text'"):
        read_documents(tmp_path / "a.parquet")
