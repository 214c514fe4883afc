"""Error-compensating rounding: each column's rounding error is made up for by the columns not yet rounded.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
Columns are rounded in the order of their inputs' energy, on grids fixed beforehand, so that groups stay
contiguous in storage.

Shape legend: R rows (outputs), C columns (inputs), N groups, S group size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from roots_compress.model.quantized import Format
from roots_compress.quantize.rounding import Grid, QuantizedMatrix, fit_grid, group_columns

BLOCK_COLUMNS = 128
"""Columns whose corrections to later columns are applied together, as one matrix product."""


def compensated_matrix(
    weight_RC: Tensor, weight_format: Format, group_size: int, gram_CC: Tensor, *, damping: float = 0.01
) -> QuantizedMatrix:
    """Round a matrix so that its outputs on the calibration inputs change little.

    Args:
        weight_RC: finite weights.
        weight_format: the storage format.
        group_size: columns that share a scale, in the grouped formats.
        gram_CC: `X.T @ X` of the layer's inputs, in any scale; channels never excited are rounded to nearest.
        damping: added to the Gram matrix's diagonal, as a fraction of its mean.
    """
    grouped_RNS = group_columns(weight_RC, weight_format, group_size)
    grid = fit_grid(grouped_RNS, weight_format, gram_CC.diagonal())
    if not gram_CC.diagonal().any():
        return QuantizedMatrix(weight_format, grid.levels(grouped_RNS), grid, weight_RC.shape[1])
    levels_CR = _compensate(weight_RC.float().T, gram_CC.double(), grid, grouped_RNS.shape[2], damping)
    rows, groups, size = grouped_RNS.shape
    # What the last group lacks is filled with the zero point: it dequantizes to zero.
    padding_RP = grid.zero[:, -1].expand(rows, groups * size - levels_CR.shape[0])
    levels_RNS = torch.cat((levels_CR.T, padding_RP), dim=1).view(rows, groups, size)
    return QuantizedMatrix(weight_format, levels_RNS, grid, weight_RC.shape[1])


def _compensate(weight_CR: Tensor, gram_CC: Tensor, grid: Grid, size: int, damping: float) -> Tensor:
    """Return the levels `CR`; transposed so that the columns being rounded lie contiguous in memory."""
    energy_C = gram_CC.diagonal()
    order_C = energy_C.argsort(descending=True)
    factor_CC = _inverse_factor(gram_CC[order_C][:, order_C], damping * energy_C.mean()).to(weight_CR.dtype)
    remaining_CR = weight_CR[order_C].contiguous()
    group_C = order_C // size
    scale_CR, zero_CR = grid.scale.squeeze(-1).T[group_C], grid.zero.squeeze(-1).T[group_C]
    levels_CR = torch.empty_like(remaining_CR)
    columns = len(order_C)
    for start in range(0, columns, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, columns)
        block_BR = remaining_CR[start:stop]
        errors_BR = torch.empty_like(block_BR)
        for column in range(start, stop):
            here = column - start
            scale_R, zero_R = scale_CR[column], zero_CR[column]
            level_R = (block_BR[here] / scale_R).round().add(zero_R).clamp(grid.low, grid.high)
            error_R = (block_BR[here] - (level_R - zero_R) * scale_R) / factor_CC[column, column]
            block_BR[here + 1 :] -= factor_CC[column, column + 1 : stop, None] * error_R
            levels_CR[column], errors_BR[here] = level_R, error_R
        remaining_CR[stop:] -= factor_CC[start:stop, stop:].T @ errors_BR
    unordered_CR = torch.empty_like(levels_CR)
    unordered_CR[order_C] = levels_CR
    return unordered_CR


def _inverse_factor(gram_CC: Tensor, damping: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the damped Gram matrix's inverse.

    Its row k, divided by its diagonal, is how the columns after k best make up for an error in column k once
    the columns before it are fixed.
    """
    damped_CC = gram_CC + torch.diag_embed(damping.expand(len(gram_CC)))
    inverse_CC = torch.cholesky_inverse(torch.linalg.cholesky(damped_CC))
    factor_CC: Tensor = torch.linalg.cholesky(inverse_CC, upper=True)
    return factor_CC
