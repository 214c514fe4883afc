"""Folders for temporary files: gone afterwards; a fault of their place is told with its name and setting."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from roots_compress.errors import StageError
from roots_compress.io.temporary import missing_folder, temporary_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_goes_with_what_it_holds(place: Path) -> None:
    with temporary_folder() as folder:
        (folder / "file").write_text("text", encoding="utf-8")
        assert folder.is_relative_to(place)
    assert not any(place.iterdir())


def test_it_goes_where_the_block_fails(place: Path) -> None:
    with pytest.raises(ValueError, match="mine"), temporary_folder():
        raise ValueError("mine")
    assert not any(place.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_place_is_named(place: Path, number: int) -> None:
    with pytest.raises(StageError, match="temporary files") as caught, temporary_folder():
        raise OSError(number, os.strerror(number))
    assert caught.value.where == str(place)
    assert "TMPDIR" in (caught.value.remedy or "")


def test_a_copy_that_fails_there_is_told_as_its_fault(place: Path) -> None:
    with pytest.raises(StageError, match="temporary files"), temporary_folder() as folder:
        raise OSError(errno.EIO, "it broke", "/elsewhere/read", None, str(folder / "written"))


def test_other_files_faults_pass_as_they_are(place: Path) -> None:
    with pytest.raises(FileNotFoundError), temporary_folder():
        (place / "absent").read_text(encoding="utf-8")


def test_no_place_at_all_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with (
        pytest.raises(StageError, match="No usable temporary directory found in") as caught,
        temporary_folder(),
    ):
        pass
    assert "TMPDIR" in (caught.value.remedy or "")


def test_what_a_library_says_where_there_is_no_place_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "absent")])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    told = missing_folder(caught.value)
    assert told is not None
    assert "TMPDIR" in (told.remedy or "")
    assert missing_folder(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert missing_folder(OSError("it broke")) is None


def test_a_place_whose_name_is_no_text_serves_libraries_that_know_text_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("names must be UTF-8 here")
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with temporary_folder() as folder:
        (folder / "file").write_text("text", encoding="utf-8")
        str(folder).encode("utf-8")
        assert (next(odd.iterdir()) / "file").exists()
    assert not any(odd.iterdir())
