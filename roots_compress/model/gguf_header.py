"""The metadata and tensor table of a GGUF file, read without loading a tensor and without torch.

The format: `GGUF`, version, two counts, that many typed key-value pairs and tensor descriptions, padding
to the alignment, and the tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Arrays, which
hold the vocabulary, are stepped over: a checkpoint's shape is in the scalars.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from roots_compress.errors import InputError
from roots_compress.model.files import readable, regular_file

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

Scalar = int | float | bool | str


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    metadata: dict[str, Scalar | None]
    """Scalars and strings by key; None stands for an array."""
    tensors: dict[str, tuple[int, ...]]
    """Shape of each tensor, the fastest-running axis first, as the file has it."""

    @property
    def architecture(self) -> str:
        """The family's name, such as `llama`."""
        return str(self.metadata["general.architecture"])


def read_gguf_header(path: Path) -> GgufHeader:
    """Return a GGUF file's metadata and tensor shapes.

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
        return _Reader(file, path, size).header()


class _Reader:
    """A cursor over the file that refuses to step past its end."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file, self.path, self.size = file, path, size

    def header(self) -> GgufHeader:
        version = self._unpack("<I")
        if version not in VERSIONS:
            self._refuse(f"is GGUF of version {version}; versions 2 and 3 (little-endian) can be read")
        tensor_count, pair_count = int(self._unpack("<Q")), int(self._unpack("<Q"))
        metadata: dict[str, Scalar | None] = {}
        for _ in range(pair_count):
            key = self._string()
            if key in metadata:
                self._refuse(f"names {key!r} twice")
            metadata[key] = self._value(int(self._unpack("<I")))
        if not isinstance(metadata.get("general.architecture"), str):
            self._refuse("does not name its general.architecture")
        tensors: dict[str, tuple[int, ...]] = {}
        end = 0
        for _ in range(tensor_count):
            name = self._string()
            if name in tensors:
                self._refuse(f"has two tensors {name!r}")
            tensors[name], tensor_end = self._tensor(name)
            end = max(end, tensor_end)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            self._refuse(f"has the impossible alignment {alignment!r}")
        data_start = -(-self.file.tell() // alignment) * alignment
        if end and data_start + end > self.size:
            self._refuse(f"has {self.size} bytes where its tensors need {data_start + end}")
        return GgufHeader(metadata, tensors)

    def _tensor(self, name: str) -> tuple[tuple[int, ...], int]:
        dimensions = int(self._unpack("<I"))
        if dimensions > 4:
            self._refuse(f"tensor {name!r} has {dimensions} axes; 4 is the most GGUF knows")
        shape = tuple(int(self._unpack("<Q")) for _ in range(dimensions))
        number, offset = int(self._unpack("<I")), int(self._unpack("<Q"))
        try:
            items, item_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(number)]
        except (ValueError, KeyError):
            self._refuse(f"tensor {name!r} has storage type {number}, which is not known")
        return shape, offset + math.prod(shape) // items * item_bytes

    def _value(self, kind: int) -> Scalar | None:
        if kind in SCALARS:
            return self._unpack(SCALARS[kind])
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            self._refuse(f"has a value of type {kind}, which is not known")
        item_kind, count = int(self._unpack("<I")), int(self._unpack("<Q"))
        if item_kind in SCALARS:
            self._skip(struct.calcsize(SCALARS[item_kind]) * count)
        elif item_kind == STRING:
            for _ in range(count):
                self._skip(int(self._unpack("<Q")))
        else:
            self._refuse(f"has an array of type {item_kind}, which is not known")
        return None

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
