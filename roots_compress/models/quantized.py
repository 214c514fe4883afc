"""Linear and embedding modules over quantized weights, and their storage formats.

An ONNX graph uses the stored tensors unchanged:

| format | `weight` | `weight_scale` | meaning |
|---|---|---|---|
| `w8a8` | int8 `(out, in)` | `(out,)` | symmetric per output row; the input is rounded to int8 per token |
| `w8` | uint8 `(out, groups, size)` | `(out, groups)` | symmetric about 128 in groups along the input |
| `w4` | uint8 `(out, groups, size / 2)` | `(out, groups)` | asymmetric in groups |

In `w8a8`, two neighbours of a row (the first and second, the third and fourth, and so on) with the same sign
add up to at most 128. x86 without 8-bit dot products adds the products of such a pair in 16 bits
(`vpmaddubsw`), where at most 255 times 128 fits. So every processor gives the exact sum with its fastest
kernel.

The input of a grouped format is rounded to int8 too, each token in the same groups, as in ONNX Runtime's
kernel at its fast accuracy level.

A `w8a8` module may have an `input_scale`, a scalar that calibration found. Its input is then rounded by this
step for all tokens. Encoders read faster, because no maximum of a token is computed.

`w4` has a `weight_zero_point` as well, uint8 `(out, ceil(groups / 2))`. Two 4-bit values share a byte, the
even one in the low half; the groups are those of ONNX Runtime's `MatMulNBits`. An input width that is no
multiple of the group size is padded with values that dequantize to zero. An embedding that also serves as the
output head has a `lookup_scale`, `(width,)`. The modules compute the same as the graph, in float32, so that a
checkpoint can be measured without it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Format = Literal["w8a8", "w8", "w4"]
FORMATS: tuple[Format, ...] = ("w8a8", "w8", "w4")
ACTIVATION_LEVELS = 127
PAIR_LARGEST = 128
"""Largest sum of two neighbours of the same sign in `w8a8`."""
CacheFormat = Literal["int8"]
CACHE_FORMATS: tuple[CacheFormat, ...] = ("int8",)
UINT8_ZERO_POINT = 128


def groups_for(width: int, group_size: int) -> int:
    """Return the number of groups for an input of `width`."""
    return -(-width // group_size)


def matrix_bytes(rows: int, width: int, weight_format: Format, group_size: int) -> int:
    """Return the bytes of a matrix in a format, scales and zero points included."""
    if weight_format == "w8a8":
        return rows * (width + 4)
    groups = groups_for(width, group_size)
    if weight_format == "w8":
        return rows * groups * (group_size + 4)
    return rows * (groups * (group_size // 2 + 4) + -(-groups // 2))


def pairs_of(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of the first and second of each pair along the last axis; an odd last one is left out."""
    width = levels.shape[-1] // 2 * 2
    return levels[..., 0:width:2], levels[..., 1:width:2]


def sums_fit(model: nn.Module) -> bool:
    """Return whether all pairs in a model's `w8a8` matrices keep their bound.

    Matrices of an earlier version may not.
    """
    return all(
        int((first.int() + second.int()).abs().amax()) <= PAIR_LARGEST
        for module in model.modules()
        if isinstance(module, QuantizedWeight) and module.format == "w8a8" and module.width > 1
        for first, second in [pairs_of(module.weight)]
    )


def pack_nibbles(values: Tensor) -> Tensor:
    """Pack pairs along the last axis, uint8 below 16, the first in the low half; an odd length gets a 0."""
    if values.shape[-1] % 2:
        values = F.pad(values, (0, 1))
    return values[..., 0::2] | (values[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """Undo `pack_nibbles`, returning the first `count` values along the last axis."""
    pairs = torch.stack((packed & 15, packed >> 4), dim=-1)
    return pairs.flatten(-2)[..., :count]


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize to int8 per token: symmetric, scaled by the largest magnitude along the last axis.

    Returns:
        the integers, still as floats in [-127, 127], and the scales with a last axis of 1. A token of zeros
        keeps zeros, with scale 1.
    """
    largest = x.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(largest > 0, largest / ACTIVATION_LEVELS, 1.0)
    return (x / scale).round().clamp(-ACTIVATION_LEVELS, ACTIVATION_LEVELS), scale


def quantize_by(x: Tensor, scale: Tensor) -> Tensor:
    """Quantize by a fixed step to the integers of uint8 about 128, still as floats in [-128, 127]."""
    return (x / scale).round().clamp(-UINT8_ZERO_POINT, UINT8_ZERO_POINT - 1)


def rounded_input(x: Tensor, weight_format: Format, group_size: int) -> Tensor:
    """Return an input as this format reads it: rounded to int8, and converted back to floating point."""
    if weight_format == "w8a8":
        levels, scale = quantize_tokens(x)
        return levels * scale
    width = x.shape[-1]
    grouped = F.pad(x, (0, -width % group_size)).unflatten(-1, (-1, group_size))
    levels, scale = quantize_tokens(grouped)
    return (levels * scale).flatten(-2)[..., :width]


class QuantizedWeight(nn.Module):
    """A quantized matrix of `rows` by `width` in one of the formats above."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor
    input_scale: Tensor | None

    def __init__(
        self, rows: int, width: int, weight_format: Format, group_size: int, *, fixed_input: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("input_scale", torch.ones(()) if fixed_input else None)
        self.rows, self.width, self.format, self.group_size = rows, width, weight_format, group_size
        groups = groups_for(width, group_size)
        if weight_format == "w8a8":
            self.register_buffer("weight", torch.zeros(rows, width, dtype=torch.int8))
            self.register_buffer("weight_scale", torch.ones(rows))
            return
        stored = group_size if weight_format == "w8" else group_size // 2
        self.register_buffer("weight", torch.zeros(rows, groups, stored, dtype=torch.uint8))
        self.register_buffer("weight_scale", torch.ones(rows, groups))
        if weight_format == "w4":
            self.register_buffer("weight_zero_point", torch.zeros(rows, -(-groups // 2), dtype=torch.uint8))

    def dequantize(self, rows: Tensor | None = None) -> Tensor:
        """Return the float32 matrix, or only the rows numbered by an index tensor of any shape."""
        weight, scale = self._rows(self.weight, rows), self._rows(self.weight_scale, rows)
        if self.format == "w8a8":
            return weight.float() * scale[..., None]
        if self.format == "w8":
            centred = weight.float() - UINT8_ZERO_POINT
        else:
            zero = unpack_nibbles(self._rows(self.weight_zero_point, rows), scale.shape[-1])
            centred = unpack_nibbles(weight, self.group_size).float() - zero.float()[..., None]
        return (centred * scale[..., None]).flatten(-2)[..., : self.width]

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `x @ weight.T + bias`, with the input rounded to int8 by the format."""
        if self.format != "w8a8":
            rounded = rounded_input(x.float(), self.format, self.group_size)
            return F.linear(rounded, self.dequantize(), bias).to(x.dtype)
        if self.input_scale is None:
            levels, scale = quantize_tokens(x.float())
        else:
            levels, scale = quantize_by(x.float(), self.input_scale), self.input_scale
        product = F.linear(levels, self.weight.float()) * scale * self.weight_scale
        return (product if bias is None else product + bias).to(x.dtype)

    @staticmethod
    def _rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
        return tensor if rows is None else tensor[rows]


class QuantizedLinear(QuantizedWeight):
    """A linear layer over a quantized matrix; `bias` stays in floating point."""

    bias: Tensor | None

    def __init__(
        self,
        width: int,
        rows: int,
        bias: bool,
        weight_format: Format,
        group_size: int,
        *,
        fixed_input: bool = False,
    ) -> None:
        super().__init__(rows, width, weight_format, group_size, fixed_input=fixed_input)
        self.register_buffer("bias", torch.zeros(rows) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, `(..., rows)`."""
        return self.multiply(x, self.bias)


class QuantizedEmbedding(QuantizedWeight):
    """An embedding over a quantized table; a tied output head multiplies by the same table.

    Smoothing may divide the head's input by a scale for each channel and multiply the table by it; embeddings
    that are looked up must be divided again. So a tied table has a `lookup_scale`, `(width,)`.
    """

    lookup_scale: Tensor | None

    def __init__(self, rows: int, width: int, weight_format: Format, group_size: int, *, tied: bool) -> None:
        super().__init__(rows, width, weight_format, group_size)
        self.register_buffer("lookup_scale", torch.ones(width) if tied else None)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows of `tokens`, `(..., width)`."""
        return self.looked_up(tokens)

    def looked_up(self, tokens: Tensor | None = None) -> Tensor:
        """Return the embedding's rows: those of `tokens`, or all."""
        rows = self.dequantize(tokens)
        return rows if self.lookup_scale is None else rows * self.lookup_scale


class CacheRounding(nn.Module):
    """The rounding of keys and values in an int8 cache: symmetric, with one scale a channel.

    The scales are fixed, so that a graph can write each new token into the cache once and read it as it is.
    """

    key_scale: Tensor
    value_scale: Tensor

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.register_buffer("key_scale", torch.ones(heads, width))
        self.register_buffer("value_scale", torch.ones(heads, width))

    def forward(self, key_BGSD: Tensor, value_BGSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotated keys, and values, each rounded to the nearest level of its channel."""
        return _at_levels(key_BGSD, self.key_scale), _at_levels(value_BGSD, self.value_scale)


def _at_levels(x_BGSD: Tensor, scale_GD: Tensor) -> Tensor:
    scale_G1D = scale_GD[:, None]
    return (quantize_by(x_BGSD.float(), scale_G1D) * scale_G1D).to(x_BGSD.dtype)


def has_int8_cache(config: Any) -> bool:
    """Return whether the config's keys and values are cached in int8."""
    return bool(config.quantization) and "cache" in config.quantization


def make_linear(config: Any, name: str, width: int, rows: int, bias: bool) -> nn.Module:
    """Return the linear layer that the config defines for this module name, plain or quantized."""
    weight_format = format_of(config, name)
    if weight_format is None:
        return nn.Linear(width, rows, bias=bias)
    size, fixed = stored_group_size(config, name), name in config.quantization.get("fixed_inputs", ())
    return QuantizedLinear(width, rows, bias, weight_format, size, fixed_input=fixed)


def make_embedding(config: Any, name: str, *, width: int, tied: bool) -> nn.Module:
    """Return the table of tokens that the config defines for this module name, plain or quantized.

    Args:
        tied: whether the head uses it too.
    """
    weight_format = format_of(config, name)
    if weight_format is None:
        return nn.Embedding(config.vocab_size, width, padding_idx=None)
    size = stored_group_size(config, name)
    return QuantizedEmbedding(config.vocab_size, width, weight_format, size, tied=tied)


def stored_group_size(config: Any, name: str) -> int:
    """Return how many weights share a scale in a quantized module that is stored in groups."""
    usual: int = config.quantization["group_size"]
    size: int = config.quantization.get("group_sizes", {}).get(name, usual)
    return size


def format_of(config: Any, name: str) -> Format | None:
    """Return the storage format of a module, or None if its weights are plain."""
    return config.quantization["formats"].get(name) if config.quantization else None
