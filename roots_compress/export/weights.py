"""Matrices of a checkpoint as ONNX operators: plain, and each storage format of `models/quantized.py`.

| format | operators |
|---|---|
| plain | `Gemm` over the weight as the checkpoint stores it, `(out, in)` |
| `w8a8` | rows of the input to uint8 about 128, times int8, scaled by row and column: \
`com.microsoft.MatMulIntegerToFloat`, or `MatMulInteger` in a portable graph |
| `w8`, `w4` | `com.microsoft.MatMulNBits`, which reads the stored groups as they are |

Shape legend: N tokens of all rows of the batch, K input width, O output width, Q groups along the input, P
values in a group. Activations are flat, `NK`: every operator here works on matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from torch import Tensor

from roots_compress.export.builder import MICROSOFT, GraphBuilder
from roots_compress.models.config import RootsConfig
from roots_compress.models.quantized import (
    ACTIVATION_LEVELS,
    UINT8_ZERO_POINT,
    Format,
    format_of,
    groups_for,
    stored_group_size,
)
from roots_compress.models.spec import EMBEDDING

# int8 activations inside MatMulNBits: its float path runs 8-bit weights ten to eighty times slower on x86.
ACCURACY_LEVEL = 4


class QuantizedRows(NamedTuple):
    """An activation in uint8 about 128, `NK`, and the scale of each row, `N1`, or of all, a scalar."""

    levels: ir.Value
    scale: ir.Value


class Matrices:
    """The linear layers and the embedding of a checkpoint, emitted into a graph by module name."""

    def __init__(self, builder: GraphBuilder, config: RootsConfig, state: Mapping[str, Tensor]) -> None:
        self.builder, self.config, self.state = builder, config, state
        # By the activation, and whether all its rows have one scale: a shared expert may read it so, and the
        # routed experts beside it with a scale for each row.
        self._quantized: dict[tuple[ir.Value, bool], QuantizedRows] = {}
        self._zero_points_of_rows: ir.Value | None = None
        self._factors: dict[str, float] = {}
        self._shapes = config.spec.matrices()

    def scale_output(self, module: str, factor: float) -> None:
        """Scale the output of a module (a linear layer or a norm) from now on.

        No node is added. The factor is folded into a plain weight, the scales of a quantized one, or a norm's
        gain, and into the bias.
        """
        self._factors[module] = factor

    def linear(self, modules: str | Sequence[str], x_NK: ir.Value) -> ir.Value:
        """Return a module's output for a flat activation, `NO`; for several, their outputs from one product.

        Several must be `joinable`.
        """
        names = (modules,) if isinstance(modules, str) else tuple(modules)
        weight_format = format_of(self.config, names[0])
        bias = self._optional(names, "bias")
        if weight_format is None:
            return self.builder.op("Gemm", x_NK, self._joined(names, "weight"), bias, transB=1)
        if weight_format == "w8a8":
            return self._integer_product(names, x_NK, bias)
        return self._grouped_product(names, x_NK, bias, bits=8 if weight_format == "w8" else 4)

    @contextmanager
    def body(self, name: str) -> Iterator[ir.Graph]:
        """Record the nodes made inside as a branch of an `If`; branches share no activation."""
        outside = self._quantized, self._zero_points_of_rows
        self._quantized, self._zero_points_of_rows = {}, None
        try:
            with self.builder.body(name) as body:
                yield body
        finally:
            self._quantized, self._zero_points_of_rows = outside

    def change_rows(self) -> None:
        """Declare that the following activations have another number of rows."""
        self._zero_points_of_rows = None

    def joinable(self, modules: Sequence[str]) -> bool:
        """Return whether modules of one input have the same format, so that one product suffices."""
        kinds = {(self.storage(name), name + ".bias" in self.state) for name in modules}
        return len(kinds) == 1

    def vector(self, name: str) -> ir.Value:
        """Return a plain tensor of the checkpoint, such as a norm's weight, by its full name."""
        module, _, part = name.rpartition(".")
        return self._joined((module,), part)

    def stacked(self, name: str, modules: Sequence[Sequence[str]], part: str) -> ir.Value:
        """Return one initializer over the same tensor of modules of equal shapes, `(stacks, rows, ...)`.

        Args:
            modules: for each stack, the modules whose rows are interleaved in it.
            part: the tensor; weights in groups are flattened.
        """
        tensors = [[self.state[f"{module}.{part}"] for module in each] for each in modules]
        return self.builder.stacked_weight(name, tensors)

    def embedding(self, module: str, tokens_N: ir.Value) -> ir.Value:
        """Return the rows of an embedding, `NK`, dequantized if it is quantized."""
        rows_NK = self._table_rows(module, tokens_N)
        lookup_scale = module + ".lookup_scale"
        if lookup_scale not in self.state:
            return rows_NK
        return self.builder.op("Mul", rows_NK, self.vector(lookup_scale))

    def _table_rows(self, module: str, tokens_N: ir.Value) -> ir.Value:
        weight_format = format_of(self.config, module)
        rows = self.builder.op("Gather", self.vector(module + ".weight"), tokens_N, axis=0)
        if weight_format is None:
            return rows
        builder, size = self.builder, stored_group_size(self.config, module)
        scale = builder.op("Gather", self.vector(module + ".weight_scale"), tokens_N, axis=0)
        scale = builder.op("Unsqueeze", scale, builder.integers(-1))
        if weight_format == "w8a8":
            return builder.op("Mul", builder.cast(rows, ir.DataType.FLOAT), scale)
        if weight_format == "w8":
            centred = builder.op(
                "Sub", builder.cast(rows, ir.DataType.FLOAT), builder.float32(UINT8_ZERO_POINT)
            )
        else:
            zero = builder.op("Gather", self.vector(module + ".weight_zero_point"), tokens_N, axis=0)
            groups = groups_for(self._width(module), size)
            centred = builder.op("Sub", self._nibbles(rows), self._zero_points(zero, groups))
        return self._cut(builder.op("Mul", centred, scale), size, self._width(module))

    def _integer_product(self, modules: tuple[str, ...], x_NK: ir.Value, bias: ir.Value | None) -> ir.Value:
        builder = self.builder
        fixed = f"{modules[0]}.input_scale" in self.state
        rows = self._quantize_all(x_NK, modules[0]) if fixed else self._quantize_rows(x_NK, modules[0])
        weight, scale = self._transposed(modules), self._joined(modules, "weight_scale")
        zero = builder.byte(UINT8_ZERO_POINT)
        if builder.portable:
            sums = builder.op("MatMulInteger", rows.levels, weight, zero)
            product = builder.op("Mul", builder.cast(sums, ir.DataType.FLOAT), scale)
        else:
            # Scales the sums, by one scale for all rows, and adds the bias while they are in registers.
            product = builder.op(
                "MatMulIntegerToFloat",
                rows.levels,
                weight,
                rows.scale if fixed else builder.float32(1.0),
                scale,
                zero,
                *((None, bias) if fixed and bias is not None else ()),
                domain=MICROSOFT,
            )
            if fixed:
                return product
        product = builder.op("Mul", product, rows.scale)
        return product if bias is None else builder.op("Add", product, bias)

    def _transposed(self, modules: tuple[str, ...]) -> ir.Value:
        """Return the int8 weight as `KO`, which `MatMulInteger` wants.

        A table that is also the embedding stays `OK` in the file; the runtime transposes it once, at load.
        """
        if modules == (EMBEDDING,):
            return self.builder.op("Transpose", self._joined(modules, "weight"), perm=[1, 0])
        return self._joined(modules, "weight", transposed=True)

    def _quantize_all(self, x_NK: ir.Value, module: str) -> QuantizedRows:
        """Quantize an activation by the scale that its readers, such as this module, share."""
        if (x_NK, True) not in self._quantized:
            scale, zero = self.vector(f"{module}.input_scale"), self.builder.byte(UINT8_ZERO_POINT)
            with self.builder.scope("quantize"):
                levels = self.builder.op("QuantizeLinear", x_NK, scale, zero)
                self._quantized[x_NK, True] = QuantizedRows(levels, scale)
        return self._quantized[x_NK, True]

    def _quantize_rows(self, x_NK: ir.Value, module: str) -> QuantizedRows:
        """Quantize each row to uint8, once for all projections that read it, such as this module.

        x86 has dot-product instructions for uint8 times int8; int8 times int8 falls back to scalar code
        there. A row of zeros has scale 0, so its products are 0 whatever its levels.
        """
        if (x_NK, False) not in self._quantized:
            builder = self.builder
            with builder.scope("quantize"):
                last = builder.integers(-1)
                # One scale for each row is a scale along the first axis, or for one block as wide as the row:
                # ONNX Runtime quantizes blocks on all threads, and rows of an axis on one. Blocks are of
                # opset 21 and rare in other runtimes.
                blocks = not builder.portable
                largest = builder.op("ReduceMax", builder.op("Abs", x_NK), last, keepdims=int(blocks))
                scale = builder.op("Mul", largest, builder.float32(1 / ACTIVATION_LEVELS))
                zero_point = self._zero_point_of_rows(scale)
                inputs = (x_NK, scale, zero_point)
                if blocks:
                    levels = builder.op("QuantizeLinear", *inputs, axis=-1, block_size=self._width(module))
                else:
                    levels = builder.op("QuantizeLinear", *inputs, axis=0)
                    scale = builder.op("Unsqueeze", scale, last)
                self._quantized[x_NK, False] = QuantizedRows(levels, scale)
        return self._quantized[x_NK, False]

    def _zero_point_of_rows(self, scale: ir.Value) -> ir.Value:
        """Return the input's zero point, once for each of its rows, in the shape of their scales."""
        if self._zero_points_of_rows is None:
            builder = self.builder
            zero_point = ir.tensor(np.array([UINT8_ZERO_POINT], dtype=np.uint8))
            shape = builder.op("Shape", scale)
            self._zero_points_of_rows = builder.op("ConstantOfShape", shape, value=zero_point)
        return self._zero_points_of_rows

    def _grouped_product(
        self, modules: tuple[str, ...], x_NK: ir.Value, bias: ir.Value | None, bits: int
    ) -> ir.Value:
        return self.builder.op(
            "MatMulNBits",
            x_NK,
            self._joined(modules, "weight"),
            self._joined(modules, "weight_scale"),
            self._optional(modules, "weight_zero_point"),
            None,
            bias,
            domain=MICROSOFT,
            K=self._width(modules[0]),
            N=sum(len(self.state[f"{module}.weight_scale"]) for module in modules),
            bits=bits,
            block_size=stored_group_size(self.config, modules[0]),
            accuracy_level=ACCURACY_LEVEL,
        )

    def _nibbles(self, packed: ir.Value) -> ir.Value:
        """Unpack two values of each byte along the last axis, the low half first, as float32."""
        builder = self.builder
        low = builder.op("BitwiseAnd", packed, builder.byte(15))
        high = builder.op("BitShift", packed, builder.byte(4), direction="RIGHT")
        last = builder.integers(-1)
        pairs = builder.op(
            "Concat", builder.op("Unsqueeze", low, last), builder.op("Unsqueeze", high, last), axis=-1
        )
        shape = builder.op("Concat", builder.op("Shape", packed, end=-1), last, axis=0)
        return builder.cast(builder.op("Reshape", pairs, shape), ir.DataType.FLOAT)

    def _zero_points(self, packed: ir.Value, groups: int) -> ir.Value:
        """Unpack a zero point for each group, `NQ1`."""
        builder = self.builder
        unpacked = builder.op(
            "Slice",
            self._nibbles(packed),
            builder.integers(0),
            builder.integers(groups),
            builder.integers(-1),
        )
        return builder.op("Unsqueeze", unpacked, builder.integers(-1))

    def _cut(self, values_NQP: ir.Value, group_size: int, width: int) -> ir.Value:
        """Join the groups and cut off the padding of the last one."""
        builder = self.builder
        padded = groups_for(width, group_size) * group_size
        flat = builder.op("Reshape", values_NQP, builder.integers(-1, padded))
        if padded == width:
            return flat
        return builder.op("Slice", flat, builder.integers(0), builder.integers(width), builder.integers(-1))

    def _width(self, module: str) -> int:
        """Return the input width of a quantized module, which its padded storage does not show."""
        return self._shapes[module].width

    def storage(self, module: str) -> tuple[Format | None, int | None]:
        """Return a module's format, and its group size if it is stored in groups."""
        weight_format = format_of(self.config, module)
        grouped = weight_format in ("w8", "w4")
        return weight_format, stored_group_size(self.config, module) if grouped else None

    def _joined(self, modules: tuple[str, ...], part: str, *, transposed: bool = False) -> ir.Value:
        """Return one initializer over the same tensor of each module; see `joinable`."""
        tensors = [self.state[f"{module}.{part}"] for module in modules]
        last_names = "_".join([modules[0], *(module.rpartition(".")[2] for module in modules[1:])])
        factors = [self._factor(module, part) for module in modules]
        return self.builder.weight(f"{last_names}.{part}", *tensors, transposed=transposed, factors=factors)

    def _factor(self, module: str, part: str) -> float:
        """Return the part of a module's factor for one of its tensors."""
        multiplies_once = "weight" if format_of(self.config, module) is None else "weight_scale"
        return self._factors.get(module, 1.0) if part in (multiplies_once, "bias") else 1.0

    def _optional(self, modules: tuple[str, ...], part: str) -> ir.Value | None:
        return self._joined(modules, part) if f"{modules[0]}.{part}" in self.state else None
