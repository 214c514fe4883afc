"""A GGUF file's header: what it cannot say is refused by name, before anything is read by it."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from roots_compress.errors import InputError
from roots_compress.io.gguf_header import MAX_NUMBERS, read_gguf_header

BYTE, STRING, ARRAY, UNKNOWN = 0, 8, 9, 77


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def items(kind: int, count: int, value: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + value


def tensor(name: str) -> bytes:
    return text(name) + struct.pack("<IQIQ", 1, 1, 0, 0)


NAMED = pair("general.architecture", STRING, text("llama"))


def written(folder: Path, pairs: list[bytes], tensors: tuple[bytes, ...] = ()) -> Path:
    path = folder / "m.gguf"
    counts = struct.pack("<IQQ", 3, len(tensors), len(pairs))
    path.write_bytes(b"GGUF" + counts + b"".join(pairs) + b"".join(tensors) + bytes(64))
    return path


@pytest.mark.parametrize(
    ("pairs", "tensors", "words"),
    [
        ([NAMED, NAMED], (), "names 'general.architecture' twice"),
        ([NAMED], (tensor("a"), tensor("a")), "has two tensors 'a'"),
        ([NAMED, pair("k", UNKNOWN, b"")], (), "has a value of type 77, which is not known"),
        ([NAMED, pair("k", ARRAY, items(UNKNOWN, 1))], (), "has an array of type 77, which is not known"),
        ([NAMED, pair("wanted", ARRAY, items(UNKNOWN, 1))], (), "has an array of type 77"),
        ([NAMED, pair("wanted", ARRAY, items(BYTE, 1 << 40))], (), "ends in the middle of its header"),
        ([NAMED, pair("k", ARRAY, items(BYTE, 1 << 40))], (), "ends in the middle of its header"),
        ([pair("k", STRING, struct.pack("<Q", 1 << 40))], (), "has a string of 1099511627776 bytes"),
    ],
)
def test_what_no_header_holds_is_refused(
    pairs: list[bytes], tensors: tuple[bytes, ...], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, pairs, tensors)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_gguf_header(path, arrays=("wanted",))
    assert caught.value.where == str(path)


def test_a_long_array_of_numbers_is_stepped_over_and_read_where_it_is_wanted(tmp_path: Path) -> None:
    count = MAX_NUMBERS + 1
    long = items(BYTE, count, bytes(range(205)) * 5)
    after = pair("after", BYTE, b"\7")
    header = read_gguf_header(written(tmp_path, [NAMED, pair("k", ARRAY, long), after]))
    assert header.metadata == {"general.architecture": "llama", "k": None, "after": 7}
    wanted = read_gguf_header(written(tmp_path, [NAMED, pair("k", ARRAY, long), after]), arrays=("k",))
    assert wanted.arrays["k"] == tuple(range(205)) * 5
    assert wanted.metadata["after"] == 7
