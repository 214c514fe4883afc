"""What a run reads: files, folders, the split, and the text it must refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from roots_compress.configs.data import ChatConfig, DataConfig, TurnConfig
from roots_compress.data import corpora
from roots_compress.data.chat.rendering import rendered
from roots_compress.data.corpora import load_held_out, load_text
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.fingerprint import text_sha256
from roots_compress.errors import InputError
from tests.tiny import tiny_tokenizer


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def numbered(folder: Path, count: int) -> Path:
    for number in range(count):
        write(folder / f"{number:03}.txt", f"document {number}")
    return folder


def texts(documents: Sequence[Document]) -> list[str]:
    return [document.text for document in documents]


def test_a_folder_is_split_by_document(tmp_path: Path) -> None:
    split = load_text(DataConfig(train=(numbered(tmp_path, 40),), eval_fraction=0.1), seed=0)
    train, held_out = texts(split.train), texts(split.held_out)
    assert len(held_out) == 4
    assert set(train + held_out) == {f"document {number}" for number in range(40)}
    assert len(train) == 36
    assert train == sorted(train, key=lambda text: int(text.split()[1]))


def test_the_seed_decides_what_is_held_out(tmp_path: Path) -> None:
    config = DataConfig(train=(numbered(tmp_path, 40),), eval_fraction=0.1)
    first, again, other = (load_text(config, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.held_out != other.held_out


def test_a_document_that_is_repeated_stands_on_one_side_only(tmp_path: Path) -> None:
    lines = "".join(f'"document  {number % 10}"\n' for number in range(200))
    split = load_text(
        DataConfig(train=(write(tmp_path / "a.csv", "text\n" + lines),), eval_fraction=0.4), seed=0
    )
    assert (len(split.train), len(split.held_out)) == (6, 4)
    assert "without 190 repeated documents" in split.description


def test_named_held_out_files_are_held_out_whole(tmp_path: Path) -> None:
    train, held_out = write(tmp_path / "train.txt", "to learn"), write(tmp_path / "eval.txt", "to judge")
    split = load_text(DataConfig(train=(train,), eval=(held_out,)), seed=0)
    assert (texts(split.train), texts(split.held_out)) == (["to learn"], ["to judge"])


def test_held_out_text_that_stands_in_the_training_text_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text\none two\nthree\n")
    held_out = write(tmp_path / "eval.csv", "text\nfour\none  two\n")
    with pytest.raises(InputError, match=r"holds 1 of its 2 documents too; .* 'one two'") as caught:
        load_text(DataConfig(train=(train,), eval=(held_out,)), seed=0)
    assert caught.value.where == str(held_out)


@pytest.mark.parametrize(
    ("train", "held_out"), [(["a.txt", "a.txt"], []), (["a.txt"], ["b/../a.txt"]), (["."], ["a.txt"])]
)
def test_a_file_named_twice_is_refused(tmp_path: Path, train: list[str], held_out: list[str]) -> None:
    write(tmp_path / "a.txt", "text")
    write(tmp_path / "b" / "c.txt", "more")
    config = DataConfig(
        train=tuple(tmp_path / name for name in train), eval=tuple(tmp_path / name for name in held_out)
    )
    with pytest.raises(InputError, match="named twice"):
        load_text(config, seed=0)


def paragraphs(split: TextSplit) -> tuple[str, str]:
    (train,), (held_out,) = split.train, split.held_out
    return train.text, held_out.text


def test_a_single_document_is_cut_at_a_paragraph(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {number}\nof two lines." for number in range(100))
    split = load_text(DataConfig(train=(write(tmp_path / "a.txt", text),), eval_fraction=0.2), seed=0)
    train, held_out = paragraphs(split)
    assert "\n\n".join((train, held_out)) == text
    assert 0.1 <= len(held_out) / len(text) <= 0.3
    assert "the end of the one document there is" in split.description


@pytest.mark.parametrize("separator", ["\n", " "])
def test_a_single_document_without_paragraphs_is_cut_at_a_line_or_word(
    tmp_path: Path, separator: str
) -> None:
    text = separator.join(f"part{number}" for number in range(100))
    split = load_text(DataConfig(train=(write(tmp_path / "a.txt", text),)), seed=0)
    assert separator.join(paragraphs(split)) == text


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "x" * 100), ("a.jsonl", '{"prompt": "2 + 2?", "response": "4"}')]
)
def test_a_single_document_that_cannot_be_cut_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match=r"data\.eval"):
        load_text(DataConfig(train=(write(tmp_path / name, text),)), seed=0)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match="there is no text") as caught:
        load_text(DataConfig(train=(path,)), seed=0)
    assert caught.value.where == str(path)


def test_a_folder_without_text_files_names_their_endings(tmp_path: Path) -> None:
    write(tmp_path / "a.py", "pass")
    with pytest.raises(InputError, match=r"\.jsonl"):
        load_text(DataConfig(train=(tmp_path,)), seed=0)


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path, 3)
    numbered(tmp_path / "inner", 3)
    scandir = os.scandir

    def refuse(path: Path | str) -> object:
        if Path(path).name == "inner":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="inner: the folder cannot be listed: Permission denied"):
        load_text(DataConfig(train=(tmp_path,)), seed=0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        load_text(DataConfig(train=(tmp_path / "none.txt",)), seed=0)
    assert caught.value.where == str(tmp_path / "none.txt")


def test_of_one_model_only_the_text_that_it_is_measured_on_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("Some text.\n\nMore text.")

    def not_needed() -> NoReturn:
        raise AssertionError("the built-in corpus was gathered")

    monkeypatch.setitem(corpora.BUILTIN, "text", (not_needed, ""))
    mine = tmp_path / "mine.txt"
    for config in (DataConfig(eval=(mine,)), DataConfig(train=(mine,), eval=(mine,))):
        split = load_held_out(config, seed=0)
        assert [document.text for document in split.held_out] == ["Some text.\n\nMore text."]
        assert split.train == ()
        assert split.description == "mine.txt: 1 document (22 bytes)"
    with pytest.raises(InputError, match="named twice"):
        load_held_out(DataConfig(eval=(mine, mine)), seed=0)


def test_of_one_model_without_held_out_files_a_part_is_held_out(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"Text number {number}.")
    config = DataConfig(train=(tmp_path,))
    assert load_held_out(config, seed=3) == load_text(config, seed=3)


def test_conversations_are_read_in_the_format_that_is_given_in_plain_fields(tmp_path: Path) -> None:
    lines = [{"prompt": f"q{number}", "response": f"a{number}"} for number in range(40)]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    said = ChatConfig(user=TurnConfig(prefix="Q: ", suffix="\n"), assistant=TurnConfig(prefix="A: "))
    given = [
        load_text(DataConfig(train=(path,), chat=chat), seed=0, kind="instructions") for chat in (said, None)
    ]
    first = given[0].train[0]
    assert first.format is not None
    assert given[1].train[0].format is None
    (text,) = rendered([first], tiny_tokenizer())
    number = first.spans[0].text.removeprefix("q")
    assert text.text.startswith(f"Q: q{number}\nA: a{number}")
    assert text_sha256(given[0].train) != text_sha256(given[1].train)


def test_text_in_utf_16_without_a_zero_byte_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\u65e5\u672c\u8a9e\u3042".encode("utf-16"))
    with pytest.raises(InputError, match="the text is UTF-16, not UTF-8"):
        load_text(DataConfig(train=(path,)), seed=0)


def test_settings_in_a_file_of_json_are_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a" / "settings.json", json.dumps({"threads": 3}))
    numbered(tmp_path / "a", 20)
    found = load_text(DataConfig(train=(tmp_path / "a",)), seed=0)
    assert {*texts((*found.train, *found.held_out))} == {f"document {number}" for number in range(20)}
