"""Records ONNX nodes and initializers under readable, deterministic names.

Nothing here depends on time, paths, hash order or object identity: the same calls give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

OPSET = 23
IR_VERSION = 11
MICROSOFT = "com.microsoft"

Array = NDArray[Any]
Attribute = int | float | str | Sequence[int] | ir.TensorProtocol | ir.Graph


class GraphBuilder:
    """An ONNX graph under construction.

    Args:
        dtype: element type of the activations: FLOAT or FLOAT16.
        portable: whether the graph is for any runtime, so that ONNX Runtime's own operators are used only
            where the standard has none.
    """

    def __init__(self, dtype: ir.DataType, *, portable: bool) -> None:
        self.dtype, self.portable = dtype, portable
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="roots")
        self._tape = self._outer = ir.tape.Tape(self.graph)
        self._scope = ""
        self._counts: dict[str, int] = {}
        self._initializers: dict[str, ir.Value] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes and values recorded inside with `name/`."""
        outer = self._scope
        self._scope = f"{outer}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    @contextmanager
    def body(self, name: str) -> Iterator[ir.Graph]:
        """Record the nodes made inside as the body of an `If` or a `Scan`; it may read all earlier values.

        Initializers go to the outer graph, so that bodies share them.
        """
        body = ir.Graph([], [], nodes=[], name=self._scope + name)
        around, self._tape = self._tape, ir.tape.Tape(body)
        try:
            with self.scope(name):
                yield body
        finally:
            self._tape = around

    def give(self, body: ir.Graph, *values: ir.Value, dtype: ir.DataType | None = None) -> None:
        """Make values a body's outputs, with their type, because nothing infers it for ORT's operators.

        Args:
            body: of an `If` or a `Scan`.
            dtype: their type; by default the graph's.
        """
        for value in values:
            value.type = ir.TensorType(dtype or self.dtype)
        body.outputs.extend(values)

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Attribute
    ) -> ir.Value:
        """Record a node and return its one output. None stands for an optional input left out."""
        return self.op_outputs(op_type, inputs, 1, domain=domain, **attributes)[0]

    def op_outputs(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> Sequence[ir.Value]:
        """Record a node and return its outputs."""
        if domain:
            self.graph.opset_imports[domain] = 1
        name = self._fresh(op_type)
        values = self._tape.op_multi_out(
            op_type, inputs, attributes, num_outputs=outputs, domain=domain, name=name
        )
        for index, value in enumerate(values):
            value.name = name if outputs == 1 else f"{name}:{index}"
        return values

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Add a graph input; strings in the shape name dynamic axes."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def optional_input(self, name: str, default: Array, shape: Sequence[int | str] = ()) -> ir.Value:
        """Add an optional input: an initializer of the same name is its default."""
        value = self.input(name, ir.DataType.from_numpy(default.dtype), shape)
        value.const_value = ir.tensor(default, name=name)
        self.graph.register_initializer(value)
        return value

    def output(self, name: str, value: ir.Value, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Make a value a graph output under the given name."""
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.graph.outputs.append(value)

    def weight(
        self, name: str, *tensors: Tensor, transposed: bool = False, factors: Sequence[float] = ()
    ) -> ir.Value:
        """Return the initializer of this name, made from a checkpoint's tensors at the first call.

        Several tensors are joined along their first axis. A single tensor's memory is shared, not copied;
        joining, scaling and transposing happen when the file is written, one initializer at a time.

        Args:
            name: the checkpoint's, or one that names the joined tensors.
            tensors: those with its values.
            transposed: whether the axes are swapped.
            factors: a factor for each of the tensors; none for 1.
        """
        scaled = any(factor != 1 for factor in factors)
        name += "_scaled" * scaled + "_transposed" * transposed
        if name not in self._initializers:
            arrays = [tensor.detach().numpy() for tensor in tensors]
            stored: ir.TensorProtocol
            if scaled or transposed or len(arrays) > 1:
                stored = _made_late(name, arrays, factors or [1.0] * len(arrays), transposed)
            else:
                stored = ir.tensor(arrays[0], name=name)
            self._initializers[name] = self._outer.initializer(stored)
        return self._initializers[name]

    def stacked_weight(self, name: str, tensors: Sequence[Sequence[Tensor]]) -> ir.Value:
        """Return an initializer `(stacks, rows, width)` made of tensors, as the file is written.

        Of vectors it is `(stacks, rows)`.

        Args:
            name: one that names the stacked tensors.
            tensors: for each stack, those whose rows are interleaved; all of one shape, `(rows, ...)`.
        """
        if name in self._initializers:
            return self._initializers[name]
        arrays = [[tensor.detach().numpy() for tensor in each] for each in tensors]
        first = arrays[0][0]
        shape: tuple[int, ...] = (len(arrays), len(first) * len(arrays[0]))
        if first.ndim > 1:
            shape = (*shape, first.size // len(first))

        def make() -> ir.TensorProtocol:
            return ir.tensor(np.stack([np.stack(each, axis=1) for each in arrays]).reshape(shape), name=name)

        dtype = ir.DataType.from_numpy(first.dtype)
        stored = ir.LazyTensor(make, dtype=dtype, shape=ir.Shape(shape), name=name)
        self._initializers[name] = self._outer.initializer(stored)
        return self._initializers[name]

    def floats(self, *values: float) -> ir.Value:
        """Return a constant of the activations' type: a scalar for one value, else a vector."""
        return self._constant(values, self.dtype)

    def float32(self, *values: float) -> ir.Value:
        """Return a float32 constant: a scalar for one value, else a vector."""
        return self._constant(values, ir.DataType.FLOAT)

    def integer(self, value: int) -> ir.Value:
        """Return an int64 scalar."""
        return self._constant((value,), ir.DataType.INT64)

    def integers(self, *values: int) -> ir.Value:
        """Return an int64 vector, as shapes and axes are given."""
        return self._constant(values, ir.DataType.INT64, vector=True)

    def byte(self, value: int) -> ir.Value:
        """Return a uint8 scalar."""
        return self._constant((value,), ir.DataType.UINT8)

    def vector(self, name: str, array: Array) -> ir.Value:
        """Return a small named initializer that the checkpoint does not hold, such as frequencies."""
        if name not in self._initializers:
            self._initializers[name] = self._outer.initializer(ir.tensor(array, name=name))
        return self._initializers[name]

    def filled(self, count: int, number: float) -> ir.Value:
        """Return a vector of one number in the activations' type, made by a node instead of stored."""
        name = f"filled_{count}_{number}"
        if name not in self._initializers:
            value = ir.tensor(np.full(1, number, dtype=self.dtype.numpy()))
            self._initializers[name] = self.op("ConstantOfShape", self.integers(count), value=value)
        return self._initializers[name]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Record a conversion."""
        return self.op("Cast", value, to=int(dtype))

    def _constant(self, values: Sequence[float], dtype: ir.DataType, vector: bool = False) -> ir.Value:
        array = np.array(values if vector or len(values) > 1 else values[0], dtype=dtype.numpy())
        text = "_".join(str(value) for value in np.atleast_1d(array).tolist())
        shape = "vector" if array.ndim else "scalar"
        return self.vector(f"constant/{dtype.name.lower()}_{shape}_{text}", array)

    def _fresh(self, op_type: str) -> str:
        stem = self._scope + op_type
        count = self._counts.get(stem, 0)
        self._counts[stem] = count + 1
        return f"{stem}_{count}" if count else stem


def _made_late(
    name: str, arrays: Sequence[Array], factors: Sequence[float], transposed: bool
) -> ir.LazyTensor:
    def make() -> ir.TensorProtocol:
        scaled = [_scaled(array, factor) for array, factor in zip(arrays, factors, strict=True)]
        joined = np.concatenate(scaled) if len(scaled) > 1 else scaled[0]
        return ir.tensor(np.ascontiguousarray(joined.T if transposed else joined), name=name)

    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    return ir.LazyTensor(
        make,
        dtype=ir.DataType.from_numpy(arrays[0].dtype),
        shape=ir.Shape(shape[::-1] if transposed else shape),
        name=name,
    )


def _scaled(array: Array, factor: float) -> Array:
    """Return the product in the array's own type, rounded once: not at all by a power of two."""
    if factor == 1:
        return array
    return np.multiply(array, factor, dtype=np.float64).astype(array.dtype)
