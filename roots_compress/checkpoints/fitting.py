"""Checks a file's tensor against the model: its shape, its kind and its values."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from roots_compress.errors import InputError


def fitted_tensor(name: str, tensor: Tensor, place: Tensor, dtype: torch.dtype | None, where: Path) -> Tensor:
    """Return a tensor in its target dtype, after checking its shape, kind and values."""
    if tensor.shape != place.shape:
        shapes = f"shape {tuple(tensor.shape)} where the configuration needs {tuple(place.shape)}"
        refuse_tensors(f"tensor for {name!r} has {shapes}", where)
    if not place.is_floating_point():
        if tensor.dtype != place.dtype:
            refuse_tensors(f"tensor for {name!r} is {tensor.dtype}, not {place.dtype}", where)
        return tensor
    if not tensor.is_floating_point():
        refuse_tensors(f"tensor for {name!r} is {tensor.dtype}, not floating point", where)
    # A stage may have chosen float16; graphs support only float16 and float32.
    fitted = tensor.to(dtype or (torch.float16 if tensor.dtype == torch.float16 else torch.float32))
    if not torch.isfinite(fitted).all():
        raise InputError(
            f"tensor for {name!r} holds NaN, infinite values, or values too large for {fitted.dtype}",
            where=where,
            remedy="The checkpoint is broken: its training diverged or it was damaged.",
        )
    return fitted


def refuse_tensors(message: str, where: Path) -> NoReturn:
    """Raise an InputError that says how weights and configuration disagree."""
    remedy = "The checkpoint is incomplete or its configuration belongs to another; copy it again."
    raise InputError(message, where=where, remedy=remedy)
