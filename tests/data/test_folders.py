"""Folders: what in them is data, and that the rest is said to be passed over."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.sources.files import FREE_BYTES
from roots_compress.data.sources.folders import list_folder
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.errors import InputError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return folder


def listed(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    listing = list_folder(folder, PlainTexts())
    return [str(path.relative_to(folder)) for path in listing.files], listing.passed_over


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".cache/x.txt", "hidden"),
        (".git/description.txt", "hidden"),
        ("a/.ipynb_checkpoints/train-checkpoint.txt", "hidden"),
        (".DS_Store.txt", "hidden"),
        ("a/._a.txt", "hidden"),
        ("README.md", "about the data"),
        ("a/readme.txt", "about the data"),
        ("LICENSE", "about the data"),
        ("Licence.md", "about the data"),
        ("train.py", "ending in .py"),
        ("train.orc", "ending in .orc"),
        ("train.tar.gz", "ending in .tar.gz"),
        ("train.txt~", "ending in .txt~"),
        ("_SUCCESS", "without an ending"),
        ("settings.json", "without records"),
    ],
)
def test_what_is_no_data_is_passed_over_and_said(tmp_path: Path, name: str, why: str) -> None:
    fill(tmp_path, "a.txt", "b/c.md", name)
    files, passed_over = listed(tmp_path)
    assert files == ["a.txt", "b/c.md"]
    assert list(passed_over) == [why]
    (shown,) = passed_over[why]
    assert name.startswith(shown)
    description = load_text(DataConfig(train=(tmp_path,)), seed=0).description
    assert f"(2 files: a.txt, b/c.md; passed over: 1 {why} ({shown}))" in description


def test_many_are_counted_and_the_first_named(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number:02}.txt" for number in range(12)), *(f"{number}.py" for number in range(5)))
    words = list_folder(tmp_path, PlainTexts()).in_words()
    read, _, passed_over = words.partition("; ")
    assert read == " (12 files: 00.txt, 01.txt, 02.txt and 9 more"
    assert passed_over == "passed over: 5 ending in .py (0.py, 1.py, 2.py and 2 more))"


def test_a_hidden_folder_or_file_that_is_named_is_read(tmp_path: Path) -> None:
    fill(tmp_path, ".data/a.txt", ".data/b.txt", ".c.txt")
    split = load_text(DataConfig(train=(tmp_path / ".data", tmp_path / ".c.txt")), seed=0)
    assert len(split.train) + len(split.held_out) == 3


@pytest.mark.parametrize(
    ("content", "is_data"),
    [
        ('[{"text": "a"}]', True),
        ('{"text": "a"}\n{"text": "b"}', True),
        ('[{"prompt": "a", "response": "b"}]', True),
        ('{"name": "a", "version": 3}', False),
        ("[1, 2]", False),
        ("[]", False),
        ("{", False),
    ],
)
def test_json_is_data_where_it_holds_records(tmp_path: Path, content: str, is_data: bool) -> None:
    fill(tmp_path, "z.txt")
    (tmp_path / "a.json").write_text(content)
    assert listed(tmp_path) == (
        (["a.json", "z.txt"], {}) if is_data else (["z.txt"], {"without records": ["a.json"]})
    )


RECORDS = b'[{"text": "some words"}]' * 9


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json.gz", gzip.compress(RECORDS)[:-9], "damaged or cut short"),
        ("a.json.bz2", b"some words", "damaged or cut short"),
        ("a.json.gz", gzip.compress(b" " * (FREE_BYTES + 1)), "unpack to more than"),
        ("a.json", b'[{"text": "caf\xe9"}]', "byte 0xe9 is not UTF-8"),
        ("a.json", '[{"text": "a"}]'.encode("utf-16"), "UTF-16"),
        ("a.json", '[{"text": "a"}]'.encode("utf-32"), "UTF-32"),
        ("a.json", b'[{"text": "a"}]\0', "a zero byte"),
    ],
    ids=["cut", "not packed", "expands", "latin-1", "utf-16", "utf-32", "zero byte"],
)
def test_damaged_json_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    fill(tmp_path, "z.txt")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_text(DataConfig(train=(tmp_path,)), seed=0)
    assert str(caught.value.where).startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_that_the_system_does_not_read_is_an_error(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "z.txt", name)
    opened = Path.open

    def refusing(path: Path, *args: Any, **options: Any) -> Any:  # permissions do not bind root
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(InputError, match="cannot be read: Permission denied") as caught:
        list_folder(tmp_path, PlainTexts())
    assert caught.value.where == str(tmp_path / name)


def test_empty_files_and_shards_are_no_documents(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "z.txt")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.csv").write_text("id,text\n")
    (tmp_path / "d.jsonl").write_text("\n")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b""))
    split = load_text(DataConfig(train=(tmp_path,)), seed=0)
    assert len(split.train) + len(split.held_out) == 2
    assert "(b.txt, c.csv, d.jsonl and 1 more without text)" in split.description


def test_an_empty_shard_that_is_named_is_no_fault(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "z.txt")
    (tmp_path / "b.txt").write_text("")
    config = DataConfig(train=tuple(tmp_path / name for name in ("a.txt", "b.txt", "z.txt")))
    assert "(b.txt without text)" in load_text(config, seed=0).description


def test_nothing_but_empty_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="no text in any of the files") as caught:
        load_text(DataConfig(train=(tmp_path / "a.txt", tmp_path / "b.csv")), seed=0)
    assert caught.value.where == "data.train"
    with pytest.raises(InputError, match=r"no text in files .*2 files: a\.txt, b\.csv"):
        load_text(DataConfig(train=(tmp_path,)), seed=0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_links_are_followed_and_each_file_is_read_once(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "o.txt", ".blob")
    folder = fill(tmp_path / "ds", "a.txt", "real/b.txt")
    (folder / "again.txt").symlink_to("a.txt")
    os.link(folder / "a.txt", folder / "hard.txt")
    (folder / "loop").symlink_to(".")
    (folder / "a-link").symlink_to("real")
    (folder / "nothing.txt").symlink_to("absent")
    (folder / "itself.txt").symlink_to("itself.txt")
    (folder / "out").symlink_to(outside)
    (folder / "named.txt").symlink_to(outside / ".blob")
    os.mkfifo(folder / "pipe.txt")
    files, passed_over = listed(folder)
    assert files == ["a.txt", "named.txt", "out/o.txt", "real/b.txt"]
    assert {why: sorted(names) for why, names in passed_over.items()} == {
        "hidden": ["out/.blob"],
        "linked to nothing": ["itself.txt", "nothing.txt"],
        "linked twice": ["again.txt", "hard.txt"],
        "not a regular file": ["pipe.txt"],
    }


def test_a_damaged_file_in_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.jsonl.zst")
    with pytest.raises(InputError, match="damaged"):
        load_text(DataConfig(train=(tmp_path,)), seed=0)
