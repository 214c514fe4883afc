"""The tensors of a GGUF model, dequantized one at a time to float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import gguf
import numpy as np
import torch
from torch import Tensor

from roots_compress.checkpoints.inspect import SourceInfo
from roots_compress.errors import InputError
from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.tensors import to_roots
from roots_compress.io.gguf_header import GgufTensor

PAIRED = (".attn_q.", ".attn_k.")


def gguf_tensors(source: SourceInfo) -> Iterator[tuple[str, Tensor]]:
    """Yield ROOTS names and float32 tensors of a GGUF model.

    Raises:
        InputError: a file ends before its tensors do.
    """
    family = GGUF_FAMILIES[source.model_type]
    tensors: Mapping[str, GgufTensor] = source.gguf
    attentions = source.spec.attentions()

    def take(name: str) -> Tensor:
        tensor = read_tensor(name, tensors[name])
        if family.paired_positions and any(part in name for part in PAIRED):
            return _halves(tensor, attentions[int(name.split(".")[1])].head_dim)
        return tensor

    return to_roots(
        family.rules(source.spec),
        tensors,
        take,
        ignored=family.ignored,
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


def _halves(tensor: Tensor, head_dim: int) -> Tensor:
    """Reorder rows of q or k so that the halves of a head rotate together, not neighbouring rows.

    A tensor of another height than heads make is returned as it is, and refused for its shape later.
    """
    if tensor.shape[0] % head_dim:
        return tensor
    pairs = tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)
