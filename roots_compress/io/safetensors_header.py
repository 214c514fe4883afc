"""The header of a safetensors file, read and checked without loading a tensor and without torch.

The format: 8 bytes with the header's length N (little-endian), N bytes of JSON with each tensor's dtype,
shape and `data_offsets` into the rest of the file, then the tensors' bytes without holes or overlaps
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from roots_compress.errors import InputError
from roots_compress.io.json_files import parse_json_object, readable, regular_file

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one element of each dtype that can be read here; floats of 8 bits or fewer are not among them."""

MAX_AXES = 64
"""As many as torch allows."""
TOO_LARGE = 1 << 63
"""Above any side and any place in a file; numbers of thousands of digits would take minutes to multiply."""

# What else is found under the name of a safetensors file, by its first bytes.
IMPOSTORS = {
    b"PK\x03\x04": (
        "is a zip archive, as torch.save writes pickles, not safetensors",
        "Pickles can run code and are never read. Convert the checkpoint to safetensors where you trust it.",
    ),
    b"\x80": (
        "is a Python pickle, not safetensors",
        "Pickles can run code and are never read. Convert the checkpoint to safetensors where you trust it.",
    ),
}
CHUNK_BYTES = 1 << 20
DAMAGED = "The file is damaged or incomplete; copy or download it again."


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies, and what it is."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the end of the header."""
    end: int
    """First byte after it."""


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of a safetensors file by name, after checking that they fill the file exactly.

    Raises:
        InputError: it is not a regular file, not safetensors, or its header contradicts itself or the file.
    """
    size = regular_file(path)
    with readable(path) as file:
        opening = file.read(32)
        for magic, (message, remedy) in IMPOSTORS.items():
            # A pickle's first byte could also be the low byte of a header's length: what follows that is `{`.
            if opening.startswith(magic) and opening[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
                raise InputError(message, where=path, remedy=remedy)
        if size < LENGTH_BYTES:
            _refuse(f"has {size} bytes, too few for a safetensors file", path)
        length = int.from_bytes(opening[:LENGTH_BYTES], "little")
        if length > MAX_HEADER_BYTES:
            _refuse(f"claims a header of {length} bytes; the limit is {MAX_HEADER_BYTES}", path)
        if length > size - LENGTH_BYTES:
            _refuse(f"claims a header of {length} bytes, but the file has {size}", path)
        file.seek(LENGTH_BYTES)
        header = parse_json_object(file.read(length), f"{path} (header)")
    header.pop("__metadata__", None)
    entries = {name: _entry(name, value, path) for name, value in header.items()}
    _check_layout(entries, size - LENGTH_BYTES - length, path)
    return entries


def same_bytes(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two tensors are stored alike: of one kind and shape, with the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with readable(one.file) as left, readable(other.file) as right:
        for file, entry in ((left, one), (right, other)):
            file.seek(LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little") + entry.start)
        remaining = one.end - one.start
        while remaining:
            count = min(remaining, CHUNK_BYTES)
            part = left.read(count)
            if not part or part != right.read(count):
                return False
            remaining -= len(part)
    return True


def _entry(name: str, value: Any, path: Path) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(f"tensor {name!r} does not have exactly dtype, shape and data_offsets", path)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise InputError(
            f"tensor {name!r} has dtype {dtype!r}, which is not supported",
            where=path,
            remedy="Save the checkpoint's weights as float32, float16 or bfloat16.",
        )
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2 or len(shape) > MAX_AXES:
        _refuse(f"tensor {name!r} has a shape or offsets that no tensor can have", path)
    start, end = offsets
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        _refuse(f"tensor {name!r}: shape {shape} of {dtype} does not take {end - start} bytes", path)
    return TensorEntry(path, dtype, tuple(shape), start, end)


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < TOO_LARGE for value in values)


def _check_layout(entries: dict[str, TensorEntry], data_bytes: int, path: Path) -> None:
    """Refuse tensors that overlap, leave holes or do not end with the file."""
    expected = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != expected:
            fault = "overlaps the tensor before it" if entry.start < expected else "leaves a hole before it"
            _refuse(f"tensor {name!r} {fault}", path)
        expected = entry.end
    if expected != data_bytes:
        _refuse(f"holds {data_bytes} bytes of tensors where its header describes {expected}", path)


def _refuse(message: str, path: Path) -> NoReturn:
    raise InputError(message, where=path, remedy=DAMAGED)
