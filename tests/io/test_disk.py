"""Amounts of bytes as they are told, and the system's errors that libraries tell in words."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from roots_compress.errors import InputError
from roots_compress.io import disk
from roots_compress.io.atomic import system_errors
from roots_compress.io.disk import FileHashes, amount, file_sha256
from roots_compress.io.names import in_utf8, is_utf8


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (40_960, "41.0 kB"),
        (538_180_000, "538 MB"),
        (7_350_000, "7.35 MB"),
        (1_500_000_000, "1.50 GB"),
        (24_600_000_000, "24.6 GB"),
        (2_345_000_000_000, "2,345 GB"),
    ],
)
def test_an_amount_is_told_in_the_unit_that_shows_it(count: int, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    "words",
    [
        "No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space" })',
        "I/O error: No space left on device (os error 28)",
    ],
)
def test_a_number_in_words_becomes_the_system_s_error(tmp_path: Path, words: str) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught, system_errors(tmp_path / "file"):
        raise Exception(words)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))


def test_less_written_than_given_is_an_error_with_a_number(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"), system_errors(tmp_path / "file"):
        raise OSError("25000 requested and 1024 written")


@pytest.mark.parametrize(
    "error", [ValueError("mine"), InputError("it says: (os error 28)"), OSError(errno.EIO, "it broke")]
)
def test_other_errors_pass_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, system_errors(tmp_path):
        raise error
    assert caught.value is error


def test_a_name_that_is_no_text_has_an_alias_that_is(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9\xff")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("names must be UTF-8 here")
    with in_utf8(tmp_path) as same, in_utf8(odd) as alias:
        assert same == tmp_path
        assert is_utf8(alias)
        (alias / "file").write_text("text", encoding="utf-8")
    assert (odd / "file").read_text(encoding="utf-8") == "text"
    with pytest.raises(FileNotFoundError), in_utf8(odd / "absent"):
        pass


def test_a_name_that_a_locale_reads_as_other_text_needs_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a locale of Latin-1 reads names, which few systems have: the bytes of `é` are two characters."""
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("latin-1"))
    assert is_utf8(Path("cafe"))
    assert not is_utf8(Path("caf\u00c3\u00a9"))


def test_a_file_is_hashed_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(disk, "file_sha256", counted)
    monkeypatch.setattr(disk, "_TICK_NS", 0)
    path, hashes = tmp_path / "weights", FileHashes()
    path.write_bytes(b"one")
    assert hashes.sha256(path) == hashes.sha256(path) == file_sha256(path)
    assert len(read) == 1
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"two")
    os.utime(path, ns=times)
    assert hashes.sha256(path) == file_sha256(path), "of equal size, and with its times set back"


def test_the_hash_of_a_file_that_was_just_written_is_not_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose clock stands still meanwhile."""
    written = time.time_ns()
    monkeypatch.setattr(disk, "_signature", lambda path: (path.stat().st_size, written))
    path, hashes = tmp_path / "weights", FileHashes()
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        assert hashes.sha256(path) == file_sha256(path)
