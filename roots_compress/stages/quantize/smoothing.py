"""Channel scales that move outliers from activations into weights, chosen by the remaining error.

If the producer of a layer's input `x` can divide it by a scale per channel at no cost, the columns of the
layer's weight are multiplied by the scale: the model computes the same, but rounds other values. Xiao et al.
2023, "SmoothQuant": scales from the largest inputs and weights, for quantized inputs. Lin et al. 2024, "AWQ":
scales from the inputs' energy, so that weight-only rounding is finest in the columns that matter.

A block names the producers that can divide its inputs (`models/ops/`): the norm before it; the value
projection before the output projection; the up projection before down. A producer's own quantization does not
change, because its scales are per row. Only float arithmetic is approximate.

Shape legend: C input channels, R output rows, S sampled input rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from roots_compress.calibration.activations import ResidualStream
from roots_compress.configs.quantize import GroupSetting
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import Format, rounded_input
from roots_compress.progress import track
from roots_compress.stages.quantize.groups import group_size_of
from roots_compress.stages.quantize.inputs import BoundInput, SeenInput, bound_inputs, observe
from roots_compress.stages.quantize.rounding import QuantizedMatrix, quantize_matrix

EXPONENTS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Exponents: how much of a channel's range moves into the weights. 0 (no scale) is always compared too."""
LARGEST_SCALE = 1e4
"""Bounds scales on both sides: channels that are nearly zero in calibration must not be amplified."""


def smoothing_scale(input_C: Tensor, weight_C: Tensor, exponent: float) -> Tensor:
    """Return `input^a / weight^(1-a)` of geometric mean 1, for positive magnitudes; 1 where either is 0."""
    known = (input_C > 0) & (weight_C > 0)
    if not known.any():
        return torch.ones_like(input_C)
    logarithm_C = exponent * input_C.log() - (1 - exponent) * weight_C.log()
    logarithm_C = logarithm_C - logarithm_C[known].mean()
    return torch.where(known, logarithm_C.exp().clamp(1 / LARGEST_SCALE, LARGEST_SCALE), 1.0)


def relative_error(reference: Tensor, output: Tensor) -> float:
    """Return the root mean square of the difference, relative to the reference's; 0 if that is 0."""
    size = reference.square().mean()
    if size == 0:
        return 0.0
    return float(((output - reference).square().mean() / size).sqrt())


@torch.no_grad()
def output_error(sample_SC: Tensor, weight_RC: Tensor, quantized: QuantizedMatrix) -> float:
    """Return the relative output error of a quantized matrix, its input's rounding included."""
    exact_SR = sample_SC @ weight_RC.float().T
    rounded_SC = rounded_input(sample_SC, quantized.format, quantized.levels.shape[-1])
    return relative_error(exact_SR, rounded_SC @ quantized.dequantize().T)


@torch.no_grad()
def outlier_scales(
    model: RootsWithHead,
    windows: PackedWindows,
    weight_format: Format,
    group_size: GroupSetting,
    *,
    device: str,
    events: Events,
) -> tuple[dict[str, Tensor], ResidualStream]:
    """Find the scales `C` of the layers' inputs for which folding helps.

    Folding does not change the model's outputs, so rounding costs can be estimated before anything is folded
    or rounded.

    Returns:
        the scales by the full names of the inputs' first consumers, and the residual stream after the last
        layer.

    Raises:
        StageError: an input holds NaN or an infinity.
    """
    scales: dict[str, Tensor] = {}
    stream = ResidualStream(model, windows, device=device)
    layers = track(model.model.all_layers(), events, "looking for outliers")
    for index, layer in enumerate(stream.passing(layers)):
        name = model.config.spec.layer_path(index)
        for half in layer.halves:
            inputs = observe(half, stream, name, gram=False, advance=True)
            for each, seen in zip(bound_inputs(half), inputs, strict=True):
                scale_C = best_scale(each, seen, weight_format, group_size)
                if scale_C is not None:
                    scales |= {f"{name}.{read}": scale_C for read in (each.name, *each.others)}
    return scales, stream


@torch.no_grad()
def best_scale(
    each: BoundInput, seen: SeenInput, weight_format: Format, group_size: GroupSetting
) -> Tensor | None:
    """Return the channel scale with the least output error; None if folding does not help.

    The error is over all consumers' outputs on the sampled rows, each relative to its own size. Matrices are
    rounded to nearest without clipping, and inputs by the format.
    """
    if not each.producers:
        return None
    size = group_size_of(group_size, weight_format, each.width)
    exact = exact_outputs(each, seen)
    best, least = None, input_error(each, seen, None, weight_format, size, exact)
    for scale_C in _candidates(each, seen, weight_format):
        error = input_error(each, seen, scale_C, weight_format, size, exact)
        if error < least:
            best, least = scale_C, error
    return best


def energy_scales(mean_square_C: Tensor) -> list[Tensor]:
    """Return the candidate scales for inputs that are rounded in groups: powers of their energy."""
    energy_C = mean_square_C.sqrt()
    return [smoothing_scale(energy_C, torch.ones_like(energy_C), exponent) for exponent in EXPONENTS]


def _candidates(each: BoundInput, seen: SeenInput, weight_format: Format) -> list[Tensor]:
    if weight_format != "w8a8":
        return energy_scales(each.shared(seen.mean_square))
    input_C = each.shared(seen.statistics.largest)
    columns = [linear.weight.abs().amax(dim=0).float() for linear in each.readers]
    weight_C = each.shared(torch.stack(columns).amax(dim=0))
    return [smoothing_scale(input_C, weight_C, exponent) for exponent in EXPONENTS]


@torch.no_grad()
def exact_outputs(each: BoundInput, seen: SeenInput) -> list[Tensor]:
    """Return the outputs of each matrix of an input on the sampled rows, `SR`."""
    return [seen.sample @ linear.weight.float().T for linear in each.readers]


@torch.no_grad()
def input_error(
    each: BoundInput,
    seen: SeenInput,
    scale_C: Tensor | None,
    weight_format: Format,
    group_size: int,
    exact: Sequence[Tensor],
) -> float:
    """Return the sum of the squared relative output errors of an input's matrices, with a scale folded."""
    total = 0.0
    sample_SC = seen.sample
    divided_SC = sample_SC if scale_C is None else sample_SC / scale_C
    rounded_SC = rounded_input(divided_SC, weight_format, group_size)
    importance_C = seen.mean_square if scale_C is None else seen.mean_square / scale_C.square()
    for linear, exact_SR in zip(each.readers, exact, strict=True):
        weight_RC = linear.weight.float()
        scaled_RC = weight_RC if scale_C is None else weight_RC * scale_C
        quantized = quantize_matrix(
            scaled_RC, weight_format, group_size, importance_C=importance_C, clip=False
        )
        total += relative_error(exact_SR, rounded_SC @ quantized.dequantize().T) ** 2
    return total
