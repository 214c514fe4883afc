"""The device and the precision of a model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from roots_compress.errors import InputError, recipe_key

Precision = Literal["no", "bf16", "fp16"]
"""Autocast precision; `no` computes in float32."""


def resolve_device(setting: Literal["auto", "cpu", "cuda"]) -> str:
    """Return the torch device that a recipe's `device` asks for.

    Raises:
        InputError: the recipe names CUDA and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise InputError(
            f"CUDA is asked for, but torch {torch.__version__} sees no GPU here",
            where=recipe_key("device"),
            remedy="Ask for device cpu or auto, or install a CUDA build of torch on a machine with a GPU.",
        )
    if setting == "auto":
        return "cuda" if available else "cpu"
    return setting


def resolve_precision(setting: Literal["auto", "fp32", "bf16", "fp16"], device: str) -> Precision:
    """Return the autocast precision for a device; weights and optimizer state always stay float32."""
    if setting == "auto":
        return "bf16" if multiplies_bf16(device) else "no"
    return "no" if setting == "fp32" else setting


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Return the context in which matrices are multiplied in a precision."""
    return torch.autocast(device, autocast_dtype(precision), enabled=precision != "no")


def autocast_dtype(precision: Precision) -> torch.dtype:
    """Return the type in which matrices are multiplied; meaningless for `no`."""
    return torch.float16 if precision == "fp16" else torch.bfloat16


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which matrices are multiplied in their own type, without autocast."""
    kind = device.type  # such as "meta", which has no autocast
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def as_multiplied(tensor: Tensor) -> Tensor:
    """Return a tensor in the precision in which autocast multiplies matrices here.

    Autocast converts an operand again for each product, and keeps each conversion for the backward pass. So
    an input of several projections is converted once before them.
    """
    kind = tensor.device.type  # such as "meta", which has no autocast
    converts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return tensor.to(torch.get_autocast_dtype(kind)) if converts else tensor


def multiplies_bf16(device: str) -> bool:
    """Whether the device has bfloat16 products; without them bfloat16 is slower than float32."""
    if device == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16", False) or has.get("avx512_bf16", False))
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
