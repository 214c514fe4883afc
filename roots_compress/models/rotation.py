"""Rotates the basis of the residual stream, which does not change the model's outputs.

The stream's writers are rotated with it, and its readers are rotated back. RMS norms allow that, because a
rotation keeps the mean square, once their gains are moved into the weights that read them: SliceGPT (Ashkboos
et al. 2024, arXiv:2401.15024). Here one rotation serves the whole stream, so that no layer needs an extra
matrix on its residual connection.

Shape legend: W hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import ModelSpec


def is_rotatable(spec: ModelSpec) -> bool:
    """Return whether the stream has no preferred channels once the gains of its norms are in the weights.

    This holds if the only norms are RMS norms before the blocks: the gain on a block's output belongs to its
        channels. Token types and per-layer embeddings are not rotated either.
    """
    embeddings = spec.embeddings
    sublayers = [sublayer for layer in spec.layers for sublayer in layer]
    norms = [stack.final_norm for stack in spec.running]
    norms += [each.pre_norm if each.is_pre_norm else None for each in sublayers]
    others = [embeddings.tables, embeddings.norm, embeddings.token_types, embeddings.layer_inputs]
    others += [norm for each in sublayers for norm in (each.post_norm, each.joint_norm)]
    return not any(others) and all(norm is not None and norm.kind == "rms_norm" for norm in norms)


@torch.no_grad()
def rotate_stream(model: RootsWithHead, axes_WW: Tensor) -> None:
    """Express the residual stream in other axes, in place; the logits do not change.

    A tied head cannot take the final norm's gain, so the gain stays in the norm, averaged over the channels
    of each axis. The logits are exactly the same if an axis mixes only channels of equal gain, and nearly the
    same if their gains are nearly equal.

    Args:
        model: a rotatable model with plain weights.
        axes_WW: orthonormal columns, the new axes in terms of the channels.
    """
    assert is_rotatable(model.config.spec)
    decoder, tied = model.model, model.config.tie_word_embeddings
    axes_WW = axes_WW.double()
    crossing: list[nn.Linear] = []
    for half in (half for layer in decoder.all_layers() for half in layer.halves):
        crossing += half.block.source_readers()
        if half.norm_owner == half.name:
            sharing = [reader for block in half.sharing.values() for reader in block.readers()]
            _turn_readers(half.pre_norm, [*half.block.readers(), *sharing], axes_WW)
        for writer in half.block.writers():
            _set(writer.weight, axes_WW.T @ writer.weight.double())
            if writer.bias is not None:
                _set(writer.bias, axes_WW.T @ writer.bias.double())
    if decoder.encoder is not None:
        _turn_readers(decoder.encoder.norm, crossing, axes_WW)
    if tied:
        _set(decoder.norm.weight, axes_WW.square().T @ decoder.norm.weight.double())
    else:
        assert isinstance(model.lm_head, nn.Linear)
        _turn_readers(decoder.norm, [model.lm_head], axes_WW)
    tables = [decoder.embed_tokens]
    if model.config.spec.embeddings.positions is not None:
        tables += [part.embed_positions for part in decoder.parts()]
    for table in tables:
        _set(table.weight, table.weight.double() @ axes_WW)


def _turn_readers(norm: nn.Module | None, readers: list[nn.Linear], axes_WW: Tensor) -> None:
    """Move a norm's gain into its readers, and rotate these."""
    assert isinstance(norm, nn.RMSNorm)
    for reader in readers:
        _set(reader.weight, (reader.weight.double() * norm.weight.double()) @ axes_WW)
    norm.weight.fill_(1.0)


def _set(parameter: Tensor, value: Tensor) -> None:
    parameter.copy_(value.to(parameter.dtype))
