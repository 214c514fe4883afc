"""A checkpoint's fingerprint changes with each file that loading it reads, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.checkpoints.fingerprint import source_sha256
from roots_compress.checkpoints.tokenizer import JSON_FILES, OTHER_FILES
from tests.tiny import tiny_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path)
    for name in (*JSON_FILES, *OTHER_FILES):
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "model.safetensors", *JSON_FILES, *OTHER_FILES],
)
def test_a_file_that_is_read_changes_the_fingerprint(source: Path, name: str) -> None:
    before = source_sha256(source)
    content = (source / name).read_bytes()
    (source / name).write_bytes(content + b" ")
    changed = source_sha256(source)
    (source / name).unlink()
    assert len({before, changed, source_sha256(source)}) == 3
    (source / name).write_bytes(content)
    assert source_sha256(source) == before


def test_the_settings_of_a_module_do_too(source: Path) -> None:
    hashes = {source_sha256(source)}
    (source / "1_Pooling").mkdir()
    for text in ("{}", "[]"):
        (source / "1_Pooling" / "config.json").write_text(text)
        hashes.add(source_sha256(source))
    assert len(hashes) == 3


def test_a_file_that_is_not_read_does_not(source: Path) -> None:
    before = source_sha256(source)
    (source / "README.md").write_text("words")
    (source / "pytorch_model.bin").write_bytes(b"1")
    assert source_sha256(source) == before
