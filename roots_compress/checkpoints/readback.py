"""Checks a written safetensors file: a disk may lose a write without an error."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from roots_compress.io.names import in_utf8


def require_written(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Compare a file that was just written with the tensors it was written from, one at a time, to the bit.

    Args:
        path: the file; it may lack tensors that share another's storage.
        tensors: those that were written, by name.

    Raises:
        OSError: the file has other content (`EIO`), or cannot be read.
    """
    try:
        # Read, not mapped: the pages of a mapped file count as memory until it is closed.
        with (
            in_utf8(path.parent) as folder,
            safe_open(folder / path.name, framework="pt", backend="pread") as file,
        ):
            names = set(file.keys())
            stored = {tensors[name].data_ptr() for name in names}
            absent = [name for name in tensors.keys() - names if tensors[name].data_ptr() not in stored]
            whole = not absent and all(_same_bits(file.get_tensor(name), tensors[name]) for name in names)
    except (SafetensorError, KeyError):
        whole = False
    if not whole:
        raise OSError(errno.EIO, "what was written is not what stands there", str(path))


def _same_bits(left: Tensor, right: Tensor) -> bool:
    """Like `torch.equal`, but NaN equals itself and 0.0 is not -0.0."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(_bytes_of(left), _bytes_of(right))


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
