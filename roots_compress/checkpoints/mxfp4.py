"""Weights in MXFP4, dequantized as they are read.

Groups of 32 values share a scale, a power of two, and each value is a float of 4 bits (OCP Microscaling
Formats 1.0, 2023). gpt-oss stores each matrix `NAME` of its experts so, in two tensors: `NAME_blocks`, where
the low half of a byte comes first, and `NAME_scales`, whose exponents are stored with 127 added.

Shape legend: E experts, R rows, G groups of a row, W = 32 * G input width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from roots_compress.checkpoints.weight_files import BLOCKS, COPY_AGAIN, SCALES
from roots_compress.errors import InputError
from roots_compress.io.safetensors_header import TensorEntry

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Of the patterns without a sign."""
BIAS = 127
"""Added to the exponents."""


def dequantized(blocks_ERGb: Tensor, scales_ERG: Tensor) -> Tensor:
    """Return the matrices of blocks of 16 bytes, `(E, W, R)` as transformers has them, in float32."""
    values = torch.tensor((*VALUES, *(-value for value in VALUES)))
    blocks = blocks_ERGb.int()
    pairs_ERGb2 = torch.stack((values[blocks & 15], values[blocks >> 4]), dim=-1)
    exponents_ERG1 = scales_ERG.int()[..., None] - BIAS
    return torch.ldexp(pairs_ERGb2.flatten(-2), exponents_ERG1).flatten(-2).mT.contiguous()


def whole_tensors(
    entries: Mapping[str, TensorEntry], take: Callable[[str], Tensor], where: Path
) -> tuple[list[str], Callable[[str], Tensor]]:
    """Return the names of a checkpoint's matrices, and what reads one: those in MXFP4 as floats.

    Raises:
        InputError: blocks and scales do not fit together.
    """
    stems = [name.removesuffix(BLOCKS) for name in entries if name.endswith(BLOCKS)]
    for stem in stems:
        blocks, scales = entries[stem + BLOCKS], entries.get(stem + SCALES)
        shape = None if scales is None or {scales.dtype, blocks.dtype} != {"U8"} else (*scales.shape, 16)
        if blocks.shape != shape or len(blocks.shape) != 4:
            raise InputError(
                f"{stem}{BLOCKS} and {stem}{SCALES} are not the halves of a matrix in MXFP4",
                where=where,
                remedy=COPY_AGAIN,
            )
    halves = {stem + part for stem in stems for part in (BLOCKS, SCALES)}

    def read(name: str) -> Tensor:
        return dequantized(take(name + BLOCKS), take(name + SCALES)) if name in stems else take(name)

    return [*(name for name in entries if name not in halves), *stems], read
