from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from roots_compress.io.atomic import read_regular, remove_folder, write_text


def test_text_is_written_byte_for_byte(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x\r\né")
    assert (tmp_path / "a").read_bytes() == b"x\r\n\xc3\xa9"


def test_a_write_that_fails_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_that_may_not_be_as_large_is_named_and_nothing_of_it_stays(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            write_text(tmp_path / "a.txt", "more than ten bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.value.filename == str(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_a_dead_writers_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".a.tmp").symlink_to(tmp_path / "victim")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "a").read_text() == "new"


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    assert read_regular(tmp_path / "a", 3) == b"123"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_regular(tmp_path / "a", 2)


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    remove_folder(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["real"]
