"""The tensors of a GGUF model, dequantized one at a time to float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import gguf
import numpy as np
import torch
from torch import Tensor

from roots_compress.checkpoints.source import SourceInfo
from roots_compress.errors import InputError
from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.tensors import to_roots
from roots_compress.io.gguf_header import GgufTensor


def gguf_tensors(source: SourceInfo) -> Iterator[tuple[str, Tensor]]:
    """Yield ROOTS names and float32 tensors of a GGUF model.

    Raises:
        InputError: a file ends before its tensors do.
    """
    family = GGUF_FAMILIES[source.model_type]
    tensors: Mapping[str, GgufTensor] = source.gguf
    return to_roots(
        family.rules(source.spec).values(),
        tensors,
        lambda name: read_tensor(name, tensors[name]),
        ignored=family.ignored,
        computed=family.layout.computed(source.spec),
        family=family.architecture,
        where=source.path,
    )


def read_tensor(name: str, entry: GgufTensor) -> Tensor:
    """Return a tensor as float32, whatever it is stored as."""
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        stored = np.fromfile(file, dtype=np.uint8, count=entry.size)
    if len(stored) != entry.size:
        raise InputError(
            f"ends within the tensor {name!r}", where=entry.file, remedy="Copy or download it again."
        )
    rows = stored.reshape(*entry.shape[:-1], -1) if entry.size else stored
    floats = gguf.dequantize(rows, gguf.GGMLQuantizationType[entry.storage])
    return torch.from_numpy(np.ascontiguousarray(floats, dtype=np.float32)).reshape(entry.shape)
