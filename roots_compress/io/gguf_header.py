"""The metadata and tensor table of a GGUF file, read without loading a tensor and without torch.

The format: `GGUF`, version, two counts, that many typed key-value pairs and tensor descriptions, padding
to the alignment, and the tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Long arrays,
which hold the vocabulary, are stepped over: a checkpoint's shape is in scalars and in one number per layer.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NoReturn

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from roots_compress.errors import InputError
from roots_compress.io.json_files import readable, regular_file

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32
MAX_STRING_BYTES = 1 << 24
MAX_NUMBERS = 1024
"""The longest array of numbers that is kept: one per layer is the most that a checkpoint's shape needs."""

Scalar = int | float | bool | str
Numbers = tuple[int | float | bool, ...]


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies, and what it is."""

    file: Path
    storage: str
    """The name of its storage type, such as `F32` or `Q4_K`."""
    shape: tuple[int, ...]
    """The slowest-running axis first, as torch has it; a file has it the other way round."""
    start: int
    """First byte in the file."""
    size: int
    """In bytes."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    metadata: dict[str, Scalar | Numbers | None]
    """By key: scalars, strings and short arrays of numbers. None stands for any other array."""
    tensors: dict[str, GgufTensor]
    arrays: dict[str, tuple[Scalar, ...]]
    """The arrays that were asked for, of any length, by key."""

    @property
    def architecture(self) -> str:
        """The family's name, such as `llama`; empty where a later part of a split model leaves it out."""
        return str(self.metadata.get("general.architecture", ""))


def read_gguf_header(path: Path, arrays: Collection[str] = ()) -> GgufHeader:
    """Return a GGUF file's metadata and tensor table, and the arrays of the given keys that it holds.

    Raises:
        InputError: it is not a regular file, not GGUF of a known version, or shorter than its table says.
    """
    size = regular_file(path)
    with readable(path) as file:
        if file.read(4) != MAGIC:
            raise InputError(
                "is a file, but not in GGUF format",
                where=path,
                remedy="Name a GGUF file, or the directory that holds config.json and model.safetensors.",
            )
        return _Reader(file, path, size, arrays).header()


class _Reader:
    """A cursor over the file that refuses to step past its end."""

    def __init__(self, file: BinaryIO, path: Path, size: int, wanted: Collection[str]) -> None:
        self.file, self.path, self.size, self.wanted = file, path, size, wanted

    def header(self) -> GgufHeader:
        version = int(self._unpack("<I"))
        if version and version % (1 << 24) == 0:
            raise InputError(
                "is GGUF in big-endian byte order, which cannot be read here",
                where=self.path,
                remedy="Convert it with gguf-py's gguf_convert_endian, or take the little-endian file.",
            )
        if version not in VERSIONS:
            self._refuse(f"is GGUF of version {version}; versions 2 and 3 (little-endian) can be read")
        tensor_count, pair_count = int(self._unpack("<Q")), int(self._unpack("<Q"))
        metadata: dict[str, Scalar | Numbers | None] = {}
        arrays: dict[str, tuple[Scalar, ...]] = {}
        for _ in range(pair_count):
            key = self._string()
            if key in metadata:
                self._refuse(f"names {key!r} twice")
            kind = int(self._unpack("<I"))
            if kind == ARRAY and key in self.wanted:
                metadata[key], arrays[key] = None, self._array()
            else:
                metadata[key] = self._value(kind)
        # Parts of a split model but the first hold nothing of the model's metadata.
        if not isinstance(metadata.get("general.architecture", "" if "split.no" in metadata else None), str):
            self._refuse("does not name its general.architecture")
        table: dict[str, GgufTensor] = {}
        for _ in range(tensor_count):
            name = self._string()
            if name in table:
                self._refuse(f"has two tensors {name!r}")
            table[name] = self._tensor(name)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            self._refuse(f"has the alignment {alignment!r}, which is no power of 2")
        data_start = -(-self.file.tell() // alignment) * alignment
        end = max((tensor.start + tensor.size for tensor in table.values()), default=0)
        if end and data_start + end > self.size:
            self._refuse(f"has {self.size} bytes where its tensors need {data_start + end}")
        reached = 0
        for name, tensor in table.items():
            # llama.cpp's rule: with another alignment than the file's, tensors would be read some bytes off.
            if tensor.start != reached:
                self._refuse(
                    f"tensor {name!r} begins at byte {tensor.start:,} of the tensors, and not at "
                    f"{reached:,}, which the one before it and an alignment of {alignment} make"
                )
            reached += -(-tensor.size // alignment) * alignment
        tensors = {name: replace(tensor, start=data_start + tensor.start) for name, tensor in table.items()}
        return GgufHeader(metadata, tensors, arrays)

    def _tensor(self, name: str) -> GgufTensor:
        """Return a tensor's entry, its start counted from the end of the header."""
        dimensions = int(self._unpack("<I"))
        if dimensions > 4:
            self._refuse(f"tensor {name!r} has {dimensions} axes; 4 is the most GGUF knows")
        shape = tuple(int(self._unpack("<Q")) for _ in range(dimensions))
        number, offset = int(self._unpack("<I")), int(self._unpack("<Q"))
        try:
            storage = GGMLQuantizationType(number)
            items, item_bytes = GGML_QUANT_SIZES[storage]
        except (ValueError, KeyError):
            self._refuse(f"tensor {name!r} has storage type {number}, which is not known")
        if shape and shape[0] % items:
            self._refuse(f"tensor {name!r} has rows of {shape[0]} numbers, which {storage.name} cannot store")
        size = math.prod(shape) // items * item_bytes
        return GgufTensor(self.path, storage.name, shape[::-1], offset, size)

    def _value(self, kind: int) -> Scalar | Numbers | None:
        if kind in SCALARS:
            return self._unpack(SCALARS[kind])
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            self._refuse(f"has a value of type {kind}, which is not known")
        item_kind, count = int(self._unpack("<I")), int(self._unpack("<Q"))
        if item_kind in SCALARS:
            if count <= MAX_NUMBERS:
                return tuple(self._unpack(SCALARS[item_kind]) for _ in range(count))
            self._skip(struct.calcsize(SCALARS[item_kind]) * count)
        elif item_kind == STRING:
            for _ in range(count):
                self._skip(int(self._unpack("<Q")))
        else:
            self._refuse(f"has an array of type {item_kind}, which is not known")
        return None

    def _array(self) -> tuple[Scalar, ...]:
        """Return all items of an array."""
        item_kind, count = int(self._unpack("<I")), int(self._unpack("<Q"))
        if item_kind == STRING:
            return tuple(self._string() for _ in range(count))
        if item_kind not in SCALARS:
            self._refuse(f"has an array of type {item_kind}, which is not known")
        layout = SCALARS[item_kind]
        if (width := struct.calcsize(layout) * count) > self.size:
            self._refuse("ends in the middle of its header")
        return tuple(item for (item,) in struct.iter_unpack(layout, self._read(width)))

    def _string(self) -> str:
        length = int(self._unpack("<Q"))
        if length > MAX_STRING_BYTES:
            self._refuse(f"has a string of {length} bytes")
        return self._read(length).decode("utf-8", errors="replace")

    def _unpack(self, layout: str) -> int | float | bool:
        value: int | float | bool = struct.unpack(layout, self._read(struct.calcsize(layout)))[0]
        return value

    def _read(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            self._refuse("ends in the middle of its header")
        return data

    def _skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            self._refuse("ends in the middle of its header")
        self.file.seek(count, 1)

    def _refuse(self, message: str) -> NoReturn:
        raise InputError(
            message,
            where=self.path,
            remedy="The file is damaged, incomplete or too new; copy or download it again.",
        ) from None
