"""Round-to-nearest: exact on the grid, close off it, and never divided by zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from roots_compress.models.quantized import FORMATS, Format, QuantizedLinear, unpack_nibbles
from roots_compress.stages.quantize.rounding import quantize_matrix

GROUP = 16


def random_matrix(rows: int = 12, width: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def module_of(weight: Tensor, weight_format: Format) -> QuantizedLinear:
    module = QuantizedLinear(weight.shape[1], weight.shape[0], False, weight_format, GROUP)
    module.load_state_dict(quantize_matrix(weight, weight_format, GROUP).buffers())
    return module


def squared_error(weight: Tensor, quantized: Tensor) -> float:
    return float((weight - quantized).square().sum())


@pytest.mark.parametrize("weight_format", FORMATS)
def test_weights_on_a_grid_come_back_exactly(weight_format: Format) -> None:
    generator = torch.Generator().manual_seed(1)
    low, high = (-7, 8) if weight_format == "w4" else (-127, 127)
    levels = torch.randint(low, high + 1, (12, 3, GROUP), generator=generator).float()
    levels[..., 0], levels[..., 1] = low, high
    if weight_format == "w8a8":
        levels[..., 2::2] = levels[..., 2::2].clamp(-1, 1)  # So that no pair of one sign exceeds its sum.
    if weight_format == "w8a8":
        weight = levels.flatten(1) * torch.rand(12, 1, generator=generator)
    else:
        weight = (levels * torch.rand(12, 3, 1, generator=generator)).flatten(1)
    torch.testing.assert_close(quantize_matrix(weight, weight_format, GROUP).dequantize(), weight)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_the_module_reads_the_buffers_as_the_matrix_is_meant(weight_format: Format) -> None:
    weight = random_matrix()
    expected = quantize_matrix(weight, weight_format, GROUP).dequantize()
    torch.testing.assert_close(module_of(weight, weight_format).dequantize(), expected)


def test_per_row_int8_equals_a_plain_reference() -> None:
    weight = random_matrix()
    weight[:, ::2] /= 100  # So that no pair of one sign exceeds its sum.
    buffers = quantize_matrix(weight, "w8a8", GROUP, clip=False).buffers()
    scale = weight.abs().amax(dim=1) / 127
    expected = (weight / scale[:, None]).round().to(torch.int8)
    # The refined scale moves by less than half a level over a row, so integers differ by rounding only.
    assert (buffers["weight"].int() - expected.int()).abs().max() <= 1
    torch.testing.assert_close(buffers["weight_scale"], scale, rtol=5e-3, atol=0)


def test_four_bits_split_as_onnx_runtime_reads_them() -> None:
    weight = random_matrix(rows=3, width=2 * GROUP)
    buffers = quantize_matrix(weight, "w4", GROUP).buffers()
    assert buffers["weight"].shape == (3, 2, GROUP // 2)
    assert buffers["weight_zero_point"].shape == (3, 1)
    zero = unpack_nibbles(buffers["weight_zero_point"], 2)
    for row in range(3):
        for column in range(2 * GROUP):
            group, inside = divmod(column, GROUP)
            byte = int(buffers["weight"][row, group, inside // 2])
            level = byte >> 4 if inside % 2 else byte & 15
            value = (level - int(zero[row, group])) * float(buffers["weight_scale"][row, group])
            assert value == pytest.approx(float(module_of(weight, "w4").dequantize()[row, column]), abs=1e-6)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_searching_scales_never_does_worse_than_the_full_range(weight_format: Format) -> None:
    weight = random_matrix() ** 3
    searched = quantize_matrix(weight, weight_format, GROUP).dequantize()
    plain = quantize_matrix(weight, weight_format, GROUP, clip=False).dequantize()
    assert squared_error(weight, searched) <= squared_error(weight, plain) * 1.001


def test_searched_four_bits_beat_the_textbook_grid() -> None:
    weight = random_matrix(rows=64, width=4 * GROUP)
    groups = weight.view(64, 4, GROUP)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    textbook = (((groups / scale).round() + zero).clamp(0, 15) - zero) * scale
    searched = quantize_matrix(weight, "w4", GROUP).dequantize()
    assert squared_error(weight, searched) < 0.92 * squared_error(weight, textbook.flatten(1))


def test_importance_moves_the_error_to_channels_that_matter_less() -> None:
    weight = random_matrix(rows=64)
    importance = torch.ones(40)
    importance[::4] = 100.0
    plain = quantize_matrix(weight, "w4", GROUP).dequantize()
    weighted = quantize_matrix(weight, "w4", GROUP, importance_C=importance).dequantize()
    assert squared_error(weight[:, ::4], weighted[:, ::4]) < 0.8 * squared_error(
        weight[:, ::4], plain[:, ::4]
    )


def test_a_group_that_calibration_never_saw_is_rounded_as_if_it_had_not_looked() -> None:
    weight = random_matrix(rows=64)
    importance = torch.ones(40)
    importance[:GROUP] = 0.0
    blind = quantize_matrix(weight, "w4", GROUP, importance_C=importance).dequantize()
    plain = quantize_matrix(weight, "w4", GROUP).dequantize()
    torch.testing.assert_close(blind[:, :GROUP], plain[:, :GROUP])


@pytest.mark.parametrize("weight_format", FORMATS)
def test_rows_and_groups_of_zeros_keep_scale_one(weight_format: Format) -> None:
    weight = random_matrix()
    weight[3] = 0.0
    weight[5, :GROUP] = 0.0
    weight[7] = 1e-42
    quantized = quantize_matrix(weight, weight_format, GROUP)
    assert torch.isfinite(quantized.grid.scale).all()
    assert (quantized.grid.scale > 0).all()
    assert (quantized.grid.scale[3] == 1).all()
    assert not quantized.dequantize()[3].any()
    assert not quantized.dequantize()[5, :GROUP].any()


@pytest.mark.parametrize("weight_format", ["w8", "w4"])
def test_padding_dequantizes_to_zero(weight_format: Format) -> None:
    module = module_of(random_matrix(width=GROUP + 3), weight_format)
    module.width = 2 * GROUP
    assert not module.dequantize()[:, GROUP + 3 :].any()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_matrix()
    whole = quantize_matrix(weight, "w4", GROUP).buffers()
    monkeypatch.setattr("roots_compress.stages.quantize.rounding.CHUNK_ELEMENTS", 100)
    for name, tensor in quantize_matrix(weight, "w4", GROUP).buffers().items():
        assert torch.equal(tensor, whole[name])
