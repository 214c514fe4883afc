"""Error-compensating rounding against a plain reference and against all possible roundings."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from roots_compress.models.quantized import FORMATS, PAIR_LARGEST, Format
from roots_compress.stages.quantize.gptq import Compensation
from roots_compress.stages.quantize.rounding import Grid, group_columns, quantize_matrix


def problem(rows: int, width: int, samples: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return weights, and the Gram matrix of strongly correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) + 2 * torch.ones(width, width)
    x = torch.randn(samples, width, generator=generator) @ mixing
    return torch.randn(rows, width, generator=generator), x.T @ x


def output_error(difference: Tensor, gram: Tensor) -> float:
    return float(torch.einsum("rc,cd,rd->", difference, gram, difference))


def distance(weight: float, value: float) -> float:
    return abs(weight - value)


def one_by_one(
    weight_C: Tensor, gram: Tensor, grid: Grid, bounds: tuple[Tensor, Tensor], row: int, size: int
) -> Tensor:
    """Round one row as the paper describes it: after each column, refit all later ones by least squares."""
    order = gram.diagonal().argsort(descending=True)
    target, gram = weight_C[order].double(), gram[order][:, order].double()
    gram = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    current, fixed = target.clone(), torch.zeros_like(target)
    for column in range(len(target)):
        group = int(order[column]) // size
        scale, zero = grid.scale[row, group].double(), grid.zero[row, group].double()
        level = (current[column] / scale).round() + zero
        level = level.clamp(*(bound[row].flatten()[order[column]] for bound in bounds))
        fixed[column] = ((level - zero) * scale).squeeze()
        later = slice(column + 1, None)
        error = target[: column + 1] - fixed[: column + 1]
        correction = torch.linalg.solve(gram[later, later], gram[later, : column + 1] @ error)
        current[later] = target[later] + correction
    rounded = torch.empty_like(fixed)
    rounded[order] = fixed
    return rounded


@pytest.mark.parametrize("weight_format", FORMATS)
def test_equals_refitting_by_least_squares_after_each_column(
    weight_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "roots_compress.stages.quantize.gptq.BLOCK_COLUMNS", 16
    )  # So that blocks follow blocks.
    weight, gram = problem(rows=4, width=40)
    quantized = Compensation(gram).round(weight, weight_format, 16)
    size = quantized.levels.shape[2]
    grid, grouped = quantized.grid, group_columns(weight, weight_format, 16)
    full = (torch.full_like(grouped, grid.low), torch.full_like(grouped, grid.high))
    bounds = grid.bounds(grouped) if grid.paired else full
    for row in range(4):
        expected = one_by_one(weight[row], gram, grid, bounds, row, size)
        torch.testing.assert_close(quantized.dequantize()[row].double(), expected, rtol=1e-4, atol=1e-5)


def test_lies_between_nearest_rounding_and_the_best_of_all_roundings() -> None:
    weight, gram = problem(rows=1, width=5)
    quantized = Compensation(gram).round(weight, "w4", 16)
    grid = quantized.grid
    scale, zero = float(grid.scale[0, 0]), float(grid.zero[0, 0])
    values = [(level - zero) * scale for level in range(16)]
    near = [sorted(values, key=partial(distance, float(w)))[:6] for w in weight[0]]
    nearest = torch.tensor([[choices[0] for choices in near]])
    best = min(output_error(weight - torch.tensor([choice]), gram) for choice in itertools.product(*near))
    compensated = output_error(weight - quantized.dequantize(), gram)
    assert best * 0.999 <= compensated < output_error(weight - nearest, gram)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_changes_outputs_far_less_than_rounding_to_nearest(weight_format: Format) -> None:
    weight, gram = problem(rows=32, width=150, samples=400)
    compensated = Compensation(gram).round(weight, weight_format, 32).dequantize()
    nearest = quantize_matrix(weight, weight_format, 32, importance_C=gram.diagonal()).dequantize()
    assert output_error(weight - compensated, gram) < 0.5 * output_error(weight - nearest, gram)


def test_channels_never_excited_are_rounded_to_nearest() -> None:
    weight, gram = problem(rows=6, width=32)
    gram[5], gram[:, 5] = 0.0, 0.0
    quantized = Compensation(gram).round(weight, "w4", 16)
    grouped = weight.view(6, 2, 16)
    assert torch.equal(quantized.levels[:, 0, 5], quantized.grid.levels(grouped)[:, 0, 5])


def test_a_site_that_reads_only_zeros_is_rounded_to_nearest() -> None:
    weight, gram = problem(rows=6, width=32)
    quantized = Compensation(torch.zeros_like(gram)).round(weight, "w8a8", 16)
    torch.testing.assert_close(quantized.dequantize(), quantize_matrix(weight, "w8a8", 16).dequantize())


@pytest.mark.parametrize("width", [64, 63])
def test_sums_of_pairs_stay_within_16_bits(width: int) -> None:
    weight, gram = problem(rows=64, width=width)
    weight[:, 2] = weight[:, 3]  # A pair of one sign, which is the largest of its row in some.
    weight[:, 2:4] *= 3
    for quantized in (Compensation(gram).round(weight, "w8a8", 16), quantize_matrix(weight, "w8a8", 16)):
        levels = quantized.levels.flatten(1)[:, : width // 2 * 2].unflatten(1, (-1, 2))
        assert levels.sum(-1).abs().max() == PAIR_LARGEST
        assert levels.abs().max() <= 127
        assert output_error(weight - quantized.dequantize(), gram) < 1e-3 * output_error(weight, gram)


@pytest.mark.parametrize("weight_format", ["w8", "w4"])
def test_padding_dequantizes_to_zero(weight_format: Format) -> None:
    weight, gram = problem(rows=6, width=37)
    quantized = Compensation(gram).round(weight, weight_format, 16)
    padded = (quantized.levels - quantized.grid.zero).flatten(1)[:, 37:]
    assert padded.shape == (6, 11)
    assert not padded.any()
