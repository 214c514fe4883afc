"""Round-to-nearest with searched scales: a float matrix to the integers and scales of each storage format.

The formats are those of `models/quantized.py`. Scales are searched over clip ratios (and, in 4 bits, zero
points). For each candidate grid the levels are rounded, then the best scale for these levels is computed in
closed form; the candidate with the least squared error wins. Each input channel may be weighted by the mean
square of its inputs: for uncorrelated inputs the error is then the layer's output error. llama.cpp's k-quants
find their scales in this way (`ggml-quants.c`); clip ratios are searched as in AWQ (Lin et al. 2023,
arXiv:2306.00978).

Shape legend: R rows (outputs), C columns (inputs), N groups, S group size. A `w8a8` row is one
group: N = 1, S = C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.models.quantized import PAIR_LARGEST, UINT8_ZERO_POINT, Format, pack_nibbles, pairs_of

INT8_LARGEST = 127
INT4_LARGEST = 15
CLIPS: dict[Format, tuple[float, ...]] = {
    "w8a8": (1.0, 0.97, 0.94, 0.91, 0.88, 0.84, 0.8, 0.75, 0.7),
    "w8": (1.0, 0.99, 0.98),
    "w4": (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65),
}
"""Fractions of the range that a grid may cover: clipping helps long rows with tails, but hardly small 8-bit
groups."""
SMALLEST_RANGE = 1e-30
"""Groups whose weights are all below this are stored as zeros with scale 1: no scale may underflow to 0."""
IMPORTANCE_FLOOR = 0.01
"""Added to importances of mean 1, so that channels unseen in calibration still count a little."""
CHUNK_ELEMENTS = 1 << 17
"""Weights searched at a time: their temporaries (about eight floats each) stay in a core's cache."""


@dataclass(frozen=True)
class Grid:
    """The values a matrix may take: `(level - zero) * scale` for whole levels from `low` to `high`.

    Attributes:
        scale: `R N 1`, positive.
        zero: `R N 1`, whole numbers; 0 throughout where the format is symmetric.
        paired: whether two neighbours of the same sign add up to at most `PAIR_LARGEST`.
    """

    scale: Tensor
    zero: Tensor
    low: int
    high: int
    paired: bool = False

    def levels(self, weight: Tensor) -> Tensor:
        """Return the nearest level of each weight `R N S`, as floats."""
        levels = (weight / self.scale).round_().add_(self.zero).clamp_(self.low, self.high)
        return within_pairs(levels) if self.paired else levels

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest level of each paired weight `R N S`, independent of the other's.

        The room between a pair's nearest levels and its largest sum is shared by the two.
        """
        levels = self.levels(weight)
        low, high = -_shared(-levels.clamp(max=0)), _shared(levels.clamp(min=0))
        return low.clamp_(min=self.low), high.clamp_(max=self.high)


def within_pairs(levels: Tensor) -> Tensor:
    """Limit the sums of pairs along the last axis to `PAIR_LARGEST`, in place.

    Each loses half of the excess, so only pairs of the same sign change.
    """
    first, second = pairs_of(levels)
    excess = first + second
    excess.sub_(excess.clamp(-PAIR_LARGEST, PAIR_LARGEST))
    half = (excess / 2).trunc_()
    first.sub_(half)
    second.sub_(excess.sub_(half))
    return levels


def _shared(levels: Tensor) -> Tensor:
    """Return the levels, at least 0, each raised by half of its pair's distance to `PAIR_LARGEST`."""
    raised = levels.clone()
    first, second = pairs_of(raised)
    lacking = PAIR_LARGEST - first - second
    half = (lacking / 2).floor_()
    first.add_(half)
    second.add_(lacking.sub_(half))
    return raised


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix on a grid, before its integers are packed.

    Attributes:
        levels: `R N S`, whole numbers as floats.
        grid: the values of the levels.
        width: C, without the padding of the last group.
    """

    format: Format
    levels: Tensor
    grid: Grid
    width: int

    def dequantize(self) -> Tensor:
        """Return the float32 matrix, `RC`."""
        return ((self.levels - self.grid.zero) * self.grid.scale).flatten(-2)[:, : self.width]

    def buffers(self) -> dict[str, Tensor]:
        """Return the buffers of a `QuantizedWeight` of this format, by name."""
        scale = self.grid.scale.squeeze(-1)
        if self.format == "w8a8":
            return {"weight": self.levels.squeeze(1).to(torch.int8), "weight_scale": scale.squeeze(-1)}
        if self.format == "w8":
            return {"weight": (self.levels + UINT8_ZERO_POINT).to(torch.uint8), "weight_scale": scale}
        return {
            "weight": pack_nibbles(self.levels.to(torch.uint8)),
            "weight_scale": scale,
            "weight_zero_point": pack_nibbles(self.grid.zero.squeeze(-1).to(torch.uint8)),
        }


def quantize_matrix(
    weight_RC: Tensor,
    weight_format: Format,
    group_size: int,
    *,
    importance_C: Tensor | None = None,
    clip: bool = True,
) -> QuantizedMatrix:
    """Round a matrix to a format, with searched scales.

    Args:
        weight_RC: finite weights of any float dtype.
        group_size: columns that share a scale, in the grouped formats.
        importance_C: the mean square of each input channel on calibration text; equal if absent.
        clip: whether to search clip ratios; without, the grid covers the whole range.
    """
    grouped_RNS = group_columns(weight_RC, weight_format, group_size)
    grid = fit_grid(grouped_RNS, weight_format, importance_C, clip=clip)
    return QuantizedMatrix(weight_format, grid.levels(grouped_RNS), grid, weight_RC.shape[1])


def group_columns(weight_RC: Tensor, weight_format: Format, group_size: int) -> Tensor:
    """Return the weights as float32 `R N S`, padded with zeros up to a whole number of groups."""
    if weight_format == "w8a8":
        return weight_RC.float()[:, None]
    padded = F.pad(weight_RC.float(), (0, -weight_RC.shape[1] % group_size))
    return padded.view(len(padded), -1, group_size)


def fit_grid(
    weight_RNS: Tensor, weight_format: Format, importance_C: Tensor | None = None, *, clip: bool = True
) -> Grid:
    """Return the grid of least weighted squared error among the format's candidates, for each group alone."""
    _rows, groups, size = weight_RNS.shape
    importance_NS = _importance(importance_C, groups, size, weight_RNS.device)
    rows_per_chunk = max(1, CHUNK_ELEMENTS // (groups * size))
    clips = CLIPS[weight_format] if clip else CLIPS[weight_format][:1]
    grids = [_fit(chunk, weight_format, importance_NS, clips) for chunk in weight_RNS.split(rows_per_chunk)]
    return replace(
        grids[0],
        scale=torch.cat([grid.scale for grid in grids]),
        zero=torch.cat([grid.zero for grid in grids]),
    )


def _importance(importance_C: Tensor | None, groups: int, size: int, device: torch.device) -> Tensor:
    """Return importances `NS` of mean about 1; 0 for padding, whose weights are exact anyway."""
    if importance_C is None or not importance_C.any():
        return torch.ones(groups, size, device=device)
    relative_C = (importance_C / importance_C.mean()).to(device, torch.float32) + IMPORTANCE_FLOOR
    return F.pad(relative_C, (0, groups * size - len(relative_C))).view(groups, size)


def _fit(weight_RNS: Tensor, weight_format: Format, importance_NS: Tensor, clips: tuple[float, ...]) -> Grid:
    candidates = _GRIDS[weight_format]
    weighted_RNS = weight_RNS * importance_NS
    best: Grid | None = None
    explained_RN1 = torch.zeros(())
    for grid in candidates(weight_RNS, clips):
        # With levels q the error sum(h (w - s q)^2) is least at s = <w, q> / <q, q>, where it falls short of
        # sum(h w^2) by <w, q>^2 / <q, q>.
        centred = grid.levels(weight_RNS).sub_(grid.zero)
        product = (weighted_RNS * centred).sum(dim=-1, keepdim=True)
        square = (centred.square_() * importance_NS).sum(dim=-1, keepdim=True)
        # Levels that are all zero, or point the wrong way, explain nothing: they never win.
        usable = (square > 0) & (product > 0)
        gain = torch.where(usable, product.square() / square, 0.0)
        refined = replace(grid, scale=torch.where(usable, product / square, grid.scale))
        if best is None:
            best, explained_RN1 = refined, gain
            continue
        better = gain > explained_RN1
        explained_RN1 = torch.where(better, gain, explained_RN1)
        best = replace(
            best,
            scale=torch.where(better, refined.scale, best.scale),
            zero=torch.where(better, refined.zero, best.zero),
        )
    assert best is not None
    return best


def _symmetric_grids(weight_RNS: Tensor, clips: tuple[float, ...]) -> list[Grid]:
    largest = weight_RNS.abs().amax(dim=-1, keepdim=True)
    zero = torch.zeros_like(largest)
    return [Grid(_scale(largest * clip, INT8_LARGEST), zero, -INT8_LARGEST, INT8_LARGEST) for clip in clips]


def _paired_grids(weight_RNS: Tensor, clips: tuple[float, ...]) -> list[Grid]:
    """Return grids whose range holds each weight and each pair of the same sign, and smaller ones."""
    largest = weight_RNS.abs().amax(dim=-1, keepdim=True)
    if weight_RNS.shape[-1] > 1:
        first, second = pairs_of(weight_RNS)
        sums = (first + second).abs_().amax(dim=-1, keepdim=True)
        largest = torch.maximum(largest, sums * (INT8_LARGEST / PAIR_LARGEST))
    zero = torch.zeros_like(largest)
    return [
        Grid(_scale(largest * clip, INT8_LARGEST), zero, -INT8_LARGEST, INT8_LARGEST, paired=True)
        for clip in clips
    ]


def _four_bit_grids(weight_RNS: Tensor, clips: tuple[float, ...]) -> list[Grid]:
    """Return grids whose range holds zero, as the integer zero point requires, and their neighbours."""
    low = weight_RNS.amin(dim=-1, keepdim=True).clamp(max=0.0)
    high = weight_RNS.amax(dim=-1, keepdim=True).clamp(min=0.0)
    grids = []
    for clip in clips:
        scale = _scale((high - low) * clip, INT4_LARGEST)
        # Clipping takes the same fraction off both ends.
        zero = (-low * clip / scale).round()
        grids += [
            Grid(scale, (zero + shift).clamp(0, INT4_LARGEST), 0, INT4_LARGEST) for shift in (0.0, -1.0, 1.0)
        ]
    return grids


def _scale(extent: Tensor, levels: int) -> Tensor:
    return torch.where(extent > SMALLEST_RANGE, extent / levels, 1.0)


_GRIDS = {"w8a8": _paired_grids, "w8": _symmetric_grids, "w4": _four_bit_grids}
