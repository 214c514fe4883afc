"""Compressed files: every kind that is read, and every way they can be damaged or made to burst."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.sources.readers import read_documents
from roots_compress.errors import InputError


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
    ".xz": partial(lzma.compress, preset=0),
}
CONTENTS = {
    ".txt": b"one\r\ntwo\n",
    ".csv": b'text,id\n"one\r\ntwo\n",1\n',
    ".tsv": b'text\tid\n"one\ntwo\n"\t1\n',
    ".jsonl": b'{"text": "one\\ntwo\\n"}\n',
    ".json": b'[{"text": "one\\ntwo\\n"}]',
}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_compressed_file_reads_like_what_it_holds(tmp_path: Path, packing: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}{packing.upper()}"
    path.write_bytes(PACKERS[packing](CONTENTS[suffix]))
    assert [document.text for document in read_documents(path)] == ["one\ntwo\n"]


@pytest.mark.parametrize("packing", PACKERS)
def test_parts_one_after_another_are_one_file(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(PACKERS[packing](b"one ") + PACKERS[packing](b"two"))
    assert [document.text for document in read_documents(path)] == ["one two"]


@pytest.mark.parametrize("packing", PACKERS)
def test_parquet_may_be_compressed_as_a_file(tmp_path: Path, packing: str) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    path = tmp_path / f"b.parquet{packing}"
    path.write_bytes(PACKERS[packing]((tmp_path / "a.parquet").read_bytes()))
    assert [document.text for document in read_documents(path)] == ["a", "b"]


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_a_compressed_file_may_be_empty(tmp_path: Path, packing: str, content: bytes) -> None:
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(PACKERS[packing](content))
    assert read_documents(path) == []
    path.write_bytes(b"")
    assert read_documents(path) == []


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("damage", ["cut", "other", "text", "text after it", "second part"])
def test_a_damaged_one_is_refused_by_name(tmp_path: Path, packing: str, damage: str) -> None:
    packed = PACKERS[packing](b"some words to be packed, " * 99)
    other = b"\0\1\2" + packed[3:]
    damaged = {
        "cut": packed[:-9],
        "other": other,
        "text": b"some words",
        "text after it": packed + b"some words",
        "second part": packed + other,
    }[damage]
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="damaged or cut short") as caught:
        read_documents(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("packing", PACKERS)
def test_what_unpacks_to_far_more_than_text_does_is_refused(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(PACKERS[packing](b"a" * (1 << 27)))
    with pytest.raises(InputError, match=r"unpack to more than 67,108,864"):
        read_documents(path)


@pytest.mark.parametrize("packing", PACKERS)
def test_errors_in_a_compressed_file_name_its_line(tmp_path: Path, packing: str) -> None:
    for name, content, message in (
        ("a.txt", b"one\n\xff", ":2: byte 0xff"),
        ("b.txt", b"one\n\n\0", ":3: a zero byte"),
        ("c.csv", b"id,text\n1,a\n2\n", ":3: the row has 1 field"),
        ("d.jsonl", b'{"text": "a"}\n{', ":2: the line is not JSON"),
    ):
        path = tmp_path / (name + packing)
        path.write_bytes(PACKERS[packing](content))
        with pytest.raises(InputError, match=message):
            read_documents(path)


@pytest.mark.parametrize(
    ("name", "ending"), [("a.tar.gz", ".tar.gz"), ("a.gz", ".gz"), ("a.zip", ".zip"), ("a.py.zst", ".py.zst")]
)
def test_archives_and_other_kinds_are_refused(tmp_path: Path, name: str, ending: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"text"))
    with pytest.raises(InputError, match=f"'{ending}'") as caught:
        read_documents(tmp_path / name)
    assert ".jsonl" in str(caught.value.remedy)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("some words\n".encode(encoding))
    with pytest.raises(InputError, match=r"UTF-16|UTF-32|zero byte|is not UTF-8") as caught:
        read_documents(tmp_path / "a.txt")
    assert caught.value.remedy == "Save the file as UTF-8 text."


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz", "a.json", "a.parquet"])
def test_a_pointer_of_git_lfs_is_no_data(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 100\n")
    for named in (tmp_path / name, tmp_path):
        with pytest.raises(InputError, match="git-LFS pointer") as caught:
            load_text(DataConfig(train=(named,)), seed=0)
        assert caught.value.where == str(tmp_path / name)
