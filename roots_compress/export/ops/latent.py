"""Latent attention's queries, keys and values as ONNX operators; see `Latent`.

Shape legend: N tokens of all rows, or B batch and T tokens if layers keep these axes (`leading`, as `Reshape`
takes them); W hidden size, R channels of such a vector, H heads, D head dimension, V channels of a head's
values, x heads * channels.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.norms import rms_norm
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention, Latent


def of_latent(
    matrices: Matrices, op: Attention, latent: Latent, module: str, x_NW: ir.Value, leading: tuple[int, ...]
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return queries, keys and values, `Nx`, with zeros after each head's values."""
    builder = matrices.builder

    def normed(projection: str, norm: str) -> ir.Value:
        weight = matrices.vector(f"{module}.{norm}.weight")
        return rms_norm(builder, matrices.linear(f"{module}.{projection}", x_NW), weight, latent.eps)

    def split(projection: str, read: ir.Value, heads: int, channels: int) -> ir.Value:
        rows = matrices.linear(f"{module}.{projection}", read)
        return builder.op("Reshape", rows, builder.integers(*leading, heads, channels))

    def side_by_side(x_NHD: ir.Value) -> ir.Value:
        return builder.op("Reshape", x_NHD, builder.integers(*leading, op.heads * op.head_dim))

    read_Nx = x_NW if latent.query_rank is None else normed("q_a_proj", "q_a_norm")
    query_Nx = matrices.linear(f"{module}.q_proj", read_Nx)
    latent_NR = normed("kv_a_proj", "kv_a_norm")
    own_NHd = split("k_proj", latent_NR, op.heads, op.head_dim - op.turned)
    turned_N1d = split("k_rope_proj", x_NW, 1, op.turned)
    turned_NHd = builder.op("Expand", turned_N1d, builder.integers(op.heads, 1))
    key_NHD = builder.op("Concat", turned_NHd, own_NHd, axis=-1)
    value_NHV = split("v_proj", latent_NR, op.heads, op.value_dim)
    return (
        query_Nx,
        side_by_side(key_NHD),
        side_by_side(_with_zeros(builder, value_NHV, op, len(leading) + 2)),
    )


def _with_zeros(builder: GraphBuilder, value_NHV: ir.Value, op: Attention, axes: int) -> ir.Value:
    """Return values padded to the width of keys, with zeros after each head's."""
    behind = op.head_dim - op.value_dim
    if not behind:
        return value_NHV
    return builder.op("Pad", value_NHV, builder.integers(*[0] * (2 * axes - 1), behind))


def without_zeros(
    builder: GraphBuilder, op: Attention, context_Nx: ir.Value, leading: tuple[int, ...]
) -> ir.Value:
    """Return the heads' outputs without the channels of the zeros."""
    if op.value_dim == op.head_dim:
        return context_Nx
    split = builder.op("Reshape", context_Nx, builder.integers(*leading, op.heads, op.head_dim))
    first, last = builder.integers(0), builder.integers(op.value_dim)
    cut = builder.op("Slice", split, first, last, builder.integers(-1))
    return builder.op("Reshape", cut, builder.integers(*leading, op.heads * op.value_dim))
