"""Bad and surprising YAML: each is refused with a line, or read as a person means it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from roots_compress.configs.recipe.yaml import MAX_BYTES, Document, parse_yaml, read_yaml
from roots_compress.errors import InputError

SOURCE = Path("recipe.yaml")


def parse(text: str) -> Document:
    return parse_yaml(text, SOURCE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e-4", 1e-4),
        ("1E+4", 1e4),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("12:30:00", "12:30:00"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("<<", "<<"),
        ("${oc.env:HOME}", "${oc.env:HOME}"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    read = parse(f"key: {text}").value
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_infinity_and_nan_are_read_as_such() -> None:
    value = parse("[.inf, -.INF, .nan]").value
    assert isinstance(value, list)
    assert value[:2] == [float("inf"), float("-inf")]
    assert value[2] != value[2]


def test_every_key_and_item_has_its_line() -> None:
    document = parse("a: 1\n\nb:\n  - x\n  - c: {d: 2,\n        e: 3}\n")
    assert document.lines[("b",)] == 3
    assert document.lines[("b", 0)] == 4
    assert document.lines[("b", 1, "c", "e")] == 6
    assert document.place(("b", 1, "c", "missing")) == "recipe.yaml:5: b[1].c.missing"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, r"the key 'a' stands here a second time \(first in line 1\)"),
        ("a:\n  b: 1\n  'b': 2", 3, "second time"),
        ("a:\n\tb: 1", 2, "indented with a tab"),
        ("a: 1\n---\na: 2", 2, "more than one document"),
        ("a: &x 1\nb: *x", 1, "anchors and aliases"),
        ("b: *x", 1, "anchors and aliases"),
        ("&x a: 1", 1, "anchors and aliases"),
        ("a: !!python/object/apply:os.system ['touch canary']", 1, "tags"),
        ("a: !!str 5", 1, "tags"),
        ("a: ! 5", 1, "tags"),
        ("a: !!set {b}", 1, "tags"),
        ("!!omap\na: 1", 1, "tags"),
        ("a: !include other.yaml", 1, "tags"),
        ("a: 1\n? [x, y]\n: 2", 2, "a key must be text"),
        ("1: a", 1, "a key must be text"),
        ("true: a", 1, "a key must be text"),
        ("~: a", 1, "a key must be text"),
        (f"{'k' * 500}: a", 1, "a key of 500 characters"),
        (f"a: {'9' * 5000}", 1, "a number of 5000 digits"),
        ("a: b: c", 1, "a ':' where none can be"),
        ("a: [1, 2", 1, "not valid YAML"),
        ("a: 'open", 1, "not valid YAML"),
        ("a:\n  - 1\n b: 2", 3, "not valid YAML"),
        ("a: }", 1, "not valid YAML"),
        ("a: @b", 1, "not valid YAML"),
        ("%YAML 9.9\n---\na: 1", 1, "not valid YAML"),
        ("%YAML 1.99999999999\n--- [", 2, "not valid YAML"),
        ('a: "\\UFFFFFFFF"', 1, "not valid YAML"),
        ('a: "\\0"', 1, "an escape stands for a character that is not text"),
        ('a: "\\e[2J"', 1, "an escape"),
        ('a: "\\ud800"', 1, "an escape"),
        ("a: 1\nb: \x00", 2, r"control character U\+0000"),
        ("a: \x1b[2J", 1, r"control character U\+001B"),
        ("a: \ud800", 1, r"control character U\+D800"),
        ("[" * 20_000, 1, "deep"),
        ("- " * 20_000, 1, "deep"),
        ("{a: " * 20_000, 1, "deep"),
        ("\n".join(f"k{index}: 1" for index in range(30_000)), 10_000, "more than 20000 values"),
    ],
)
def test_what_a_recipe_may_not_hold_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(text)
    assert caught.value.where == f"recipe.yaml:{line}"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\n\n"])
def test_an_empty_document_is_no_value(text: str) -> None:
    assert parse(text).value is None


@pytest.mark.parametrize(
    "raw", [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"---\na: 1\n", b"a: 1\n...\n", b"%YAML 1.2\n---\na: 1"]
)
def test_harmless_variants_are_read(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(raw)
    assert read_yaml(tmp_path / "r.yaml").value == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a: 1".encode("utf-16"), "UTF-16"),
        ("a: 1".encode("utf-32"), "UTF-32"),
        (b"a: 1\nb: \xff\n", "2: not UTF-8"),
        (b"\x80\x04\x95", "not UTF-8"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_files_that_are_not_plain_text_are_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "r.yaml")
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="it is a folder"):
        read_yaml(tmp_path)


def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a plain file"):
            read_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "#" * (MAX_BYTES - 1),
        "a: '" + "x" * 1_000_000 + "'",
        "- " + "[],\n" * 300_000,
        "a: |\n" + "  x\n" * 200_000,
    ],
)
def test_the_largest_files_take_under_five_seconds(text: str) -> None:
    start = time.process_time()
    with suppress(InputError):
        parse(text)
    assert time.process_time() - start < 5.0
