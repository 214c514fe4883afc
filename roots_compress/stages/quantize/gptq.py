"""Error-compensating rounding: the columns not yet rounded compensate each column's rounding error.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
Columns are rounded in order of their inputs' energy, on grids that were fixed before, so that groups stay
contiguous in storage.

Shape legend: R rows (outputs), C columns (inputs), N groups, S group size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from roots_compress.models.quantized import Format
from roots_compress.stages.quantize.rounding import Grid, QuantizedMatrix, fit_grid, group_columns

DAMPING = 0.01
"""Added to the Gram matrix's diagonal, as a fraction of its mean."""
BLOCK_COLUMNS = 128
"""Columns whose corrections to later columns are applied together, as one matrix product."""


class Compensation:
    """How columns compensate one another's errors on given inputs: the same for all matrices that read these.

    Args:
        gram_CC: `X.T @ X` of the inputs, in any scale; channels never excited are rounded to nearest.
    """

    def __init__(self, gram_CC: Tensor) -> None:
        self.energy_C = gram_CC.diagonal()
        self.order_C = self.energy_C.argsort(descending=True)
        self.factor_CC: Tensor | None = None
        if self.energy_C.any():
            ordered_CC = gram_CC.double()[self.order_C[:, None], self.order_C]
            self.factor_CC = _inverse_factor(ordered_CC, DAMPING * self.energy_C.mean()).float()

    def round(self, weight_RC: Tensor, weight_format: Format, group_size: int) -> QuantizedMatrix:
        """Round a matrix so that its outputs on the calibration inputs change little."""
        grouped_RNS = group_columns(weight_RC, weight_format, group_size)
        grid = fit_grid(grouped_RNS, weight_format, self.energy_C)
        if self.factor_CC is None:
            return QuantizedMatrix(weight_format, grid.levels(grouped_RNS), grid, weight_RC.shape[1])
        rows, groups, size = grouped_RNS.shape
        bounds_C = _bounds(grid, grouped_RNS, self.order_C)
        levels_CR = _compensate(weight_RC.float().T, self.order_C, self.factor_CC, grid, size, bounds_C)
        # The last group is padded with the zero point, which dequantizes to zero.
        padding_RP = grid.zero[:, -1].expand(rows, groups * size - levels_CR.shape[0])
        levels_RNS = torch.cat((levels_CR.T, padding_RP), dim=1).view(rows, groups, size)
        return QuantizedMatrix(weight_format, levels_RNS, grid, weight_RC.shape[1])


def _bounds(grid: Grid, weight_RNS: Tensor, order_C: Tensor) -> list[tuple[Any, Any]]:
    """Return the lowest and the highest level of each column, numbers or `R` of each, in the order given."""
    if not grid.paired:
        return [(grid.low, grid.high)] * len(order_C)
    low_CR, high_CR = (bound.flatten(1).T[order_C].contiguous() for bound in grid.bounds(weight_RNS))
    return list(zip(low_CR, high_CR, strict=True))


def _compensate(
    weight_CR: Tensor,
    order_C: Tensor,
    factor_CC: Tensor,
    grid: Grid,
    size: int,
    bounds_C: Sequence[tuple[Any, Any]],
) -> Tensor:
    """Return the levels `CR`; transposed so that the columns being rounded lie contiguous in memory.

    Results of a column are written into allocated memory: there are thousands of small tensors.
    """
    remaining_CR = weight_CR[order_C]
    group_C = order_C // size
    scale_CR = grid.scale.squeeze(-1).T[group_C].contiguous()
    zero_CR = grid.zero.squeeze(-1).T[group_C].contiguous()
    levels_CR = torch.empty_like(remaining_CR)
    diagonal = factor_CC.diagonal().tolist()
    columns = len(order_C)
    for start in range(0, columns, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, columns)
        errors_BR = torch.empty_like(remaining_CR[start:stop])
        for column in range(start, stop):
            weight_R, level_R, error_R = remaining_CR[column], levels_CR[column], errors_BR[column - start]
            torch.div(weight_R, scale_CR[column], out=level_R)
            level_R.round_().add_(zero_CR[column]).clamp_(*bounds_C[column])
            torch.sub(level_R, zero_CR[column], out=error_R)
            error_R.mul_(scale_CR[column]).sub_(weight_R).div_(-diagonal[column])
            remaining_CR[column + 1 : stop].addr_(factor_CC[column, column + 1 : stop], error_R, alpha=-1)
        remaining_CR[stop:].addmm_(factor_CC[start:stop, stop:].T, errors_BR, alpha=-1)
    unordered_CR = torch.empty_like(levels_CR)
    unordered_CR[order_C] = levels_CR
    return unordered_CR


def _inverse_factor(gram_CC: Tensor, damping: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the damped Gram matrix's inverse.

    Its row k, divided by its diagonal, gives the best compensation of an error in column k by the columns
    after k, with the columns before it fixed. It is the inverse of the Gram matrix's factor for elimination
    from the last column to the first, so the inverse matrix itself is not needed.
    """
    reversed_CC = gram_CC.flip(0, 1)
    reversed_CC.diagonal().add_(damping)
    lower_CC = torch.linalg.cholesky(reversed_CC)
    unit_CC = torch.eye(len(lower_CC), dtype=lower_CC.dtype, device=lower_CC.device)
    inverse_CC: Tensor = torch.linalg.solve_triangular(lower_CC, unit_CC, upper=False)
    return inverse_CC.flip(0, 1)
