"""Cuts the residual stream: chooses the channels to keep, and refits their readers.

If the norms allow it, the stream is first rotated into its principal axes, so that the removed ones hold as
little energy as possible (`models/rotation.py`; SliceGPT, Ashkboos et al. 2024, arXiv:2401.15024). A channel
is removed from all layers at once. Each layer is refitted while the stream still has its full width, written
by all rows of its writers; norms and their readers see only the kept channels. A norm of a block's output
sees all channels until the end. The cut itself comes last.

Shape legend: T tokens, W hidden size, K kept channels of it, Z = W + K, O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import InputStatistics, ResidualStream
from roots_compress.data.windows import PackedWindows
from roots_compress.models.blocks.base import Half
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.layer import RootsLayer
from roots_compress.models.resizing import StreamNorm, keep_residual_channels, residual_group
from roots_compress.models.rotation import is_rotatable, rotate_stream
from roots_compress.stages.prune.importance import EnergyImportance
from roots_compress.stages.prune.layerwise import DAMPING
from roots_compress.stages.prune.narrow_norm import NarrowNorm, compensation, normalise
from roots_compress.stages.prune.plan import best_units
from roots_compress.stages.prune.refit import refit, refit_scales, relative_error

ALIKE = 0.1
"""Under a tied head, only channels whose final gains are within this fraction of their median are mixed."""
HEAD_ROWS = 4096
"""Rows of an untied head that are refitted at a time."""


@dataclass(frozen=True)
class Reader:
    """Linear layers that read the residual stream, and the norm before them."""

    owner: nn.Module
    norm_name: str
    projections: tuple[nn.Linear, ...]
    label: str
    """Names it in errors."""
    halves: Callable[[], list[Half]] | None = None
    """Their blocks, with the current norms; None for the head and for readers of an encoder's output."""

    @property
    def norm(self) -> StreamNorm:
        """The norm, until it is narrowed."""
        norm = self.owner.get_submodule(self.norm_name)
        assert isinstance(norm, StreamNorm)
        return norm


@torch.no_grad()
def cut_residual(
    model: RootsWithHead, windows: PackedWindows, width: int, *, refitted: bool, device: str
) -> list[float]:
    """Cut the residual stream to a width, in place.

    Args:
        model: on the device; every block has its own norm before it, and the stream has none.
        refitted: whether to refit the stream's readers to the kept channels.

    Returns:
        For every norm before blocks, the relative root mean square error of the outputs of the projections
        behind it.

    Raises:
        StageError: activations are NaN or infinite.
    """
    moments_WW = stream_moments(model, windows, device=device)
    if is_rotatable(model.config.spec):
        axes_WW = principal_axes(moments_WW, mixable_channels(model))
        rotate_stream(model, axes_WW)
        moments_WW = axes_WW.T @ moments_WW @ axes_WW
    kept = best_units(EnergyImportance(moments_WW.diagonal())(residual_group(model)), width)
    stream = ResidualStream(model, windows, device=device)
    narrowed: list[tuple[Reader, NarrowNorm]] = []
    scales: list[tuple[StreamNorm, float]] = []
    errors = []
    for reader in walk(model, stream):
        norm, gram_ZZ = _narrow(reader, stream, kept)
        narrowed.append((reader, norm))
        if reader.halves is None and reader.owner is not model.model:
            _fit_readers(reader, gram_ZZ, kept, refitted=refitted)
        elif reader.halves is not None:
            errors.append(_fit_readers(reader, gram_ZZ, kept, refitted=refitted))
            for half in reader.halves():
                scales.extend(_output_scale(half, stream, kept))
        elif refitted:
            _fit_head(model, norm, gram_ZZ)
    for reader, norm in narrowed:
        setattr(reader.owner, reader.norm_name, norm.write_back())
    for post_norm, scale in scales:
        post_norm.weight.mul_(scale)
    keep_residual_channels(model, kept)
    return errors


def walk(model: RootsWithHead, stream: ResidualStream) -> Iterator[Reader]:
    """Yield every reader of the stream in order, each when the stream has reached it.

    Changes of a reader affect the stream from there on.
    """
    layers, encoder = model.model.all_layers(), model.model.encoder
    for index, layer in enumerate(layers):
        if encoder is not None and index == model.config.spec.begins:
            crossing = (half.block for each in layers for half in each.halves)
            readers = tuple(reader for block in crossing for reader in block.source_readers())
            yield Reader(encoder, "norm", readers, "cross-attention")
        stream.enter(layer)
        for names in layer.sharing:
            halves = partial(_halves, layer, names)
            readers = tuple(reader for half in halves() for reader in half.block.readers())
            label = f"layer {index}'s {' and '.join(names)}"
            yield Reader(layer, f"{names[0]}_pre_norm", readers, label, halves)
            for half in halves():
                stream.add(half, stream.contributions(half))
    head = model.lm_head
    assert isinstance(head, nn.Linear)
    yield Reader(model.model, "norm", (head,), "the head")


def _halves(layer: RootsLayer, names: Sequence[str]) -> list[Half]:
    return [layer.half_named(name) for name in names]


def _output_scale(
    half: Half, stream: ResidualStream, kept: Sequence[int]
) -> Iterator[tuple[StreamNorm, float]]:
    """Yield the norm of a block's output, if there is one, and the compensation for its lost channels."""
    if isinstance(half.post_norm, StreamNorm):
        plain = stream.contributions(replace(half, post_norm=None))
        yield half.post_norm, compensation(half.post_norm, plain, kept)


def stream_moments(model: RootsWithHead, windows: PackedWindows, *, device: str) -> Tensor:
    """Return the second moments `WW` of the normed stream, summed over all places where it is read, float64.

    Without the norms' gains, which a rotation moves into the weights: so every place has the same weight.

    Raises:
        StageError: the stream is NaN or infinite.
    """
    stream = ResidualStream(model, windows, device=device)
    width = model.config.hidden_size
    moments_WW = torch.zeros(width, width, dtype=torch.float64, device=device)
    for reader in walk(model, stream):
        statistics = InputStatistics(width, gram=True, device=device)
        for hidden_BTW in stream.hidden:
            statistics.update(normalise(reader.norm, hidden_BTW.to(device)).flatten(0, -2))
        statistics.check(reader.label)
        assert statistics.gram is not None
        moments_WW += statistics.gram
    return moments_WW


def mixable_channels(model: RootsWithHead) -> list[int]:
    """Return the channels that may be mixed: all, or those that a tied head reads with nearly equal gain."""
    gain_W = model.model.norm.weight
    if not model.config.tie_word_embeddings:
        return list(range(len(gain_W)))
    median = gain_W.median()
    alike: list[int] = ((gain_W - median).abs() <= ALIKE * median.abs()).nonzero().flatten().tolist()
    return alike


def principal_axes(moments_WW: Tensor, mixed: Sequence[int]) -> Tensor:
    """Return orthonormal axes `WW`: the principal axes of the mixed channels, and the other channels."""
    index = torch.as_tensor(mixed, device=moments_WW.device)
    axes_WW = torch.eye(len(moments_WW), dtype=moments_WW.dtype, device=moments_WW.device)
    axes_WW[index[:, None], index] = torch.linalg.eigh(moments_WW[index[:, None], index]).eigenvectors
    return axes_WW


def _narrow(reader: Reader, stream: ResidualStream, kept: Sequence[int]) -> tuple[NarrowNorm, Tensor]:
    """Narrow a reader's norm to the kept channels; return it, and the Gram matrix of the change.

    The rows of the Gram matrix are `[d, v]`: the narrowed norm's output `v` (K channels), and the difference
    of the full norm's output from it, `d` (W channels).
    """
    norm, device = reader.norm, stream.device
    narrow = NarrowNorm(norm, kept, compensation(norm, stream.hidden, kept))
    statistics = InputStatistics(norm.weight.numel() + len(kept), gram=True, device=device)
    for hidden_BTW in stream.hidden:
        hidden_BTW = hidden_BTW.to(device)
        narrow_BTW = narrow(hidden_BTW)
        rows_BTZ = torch.cat([norm(hidden_BTW) - narrow_BTW, narrow_BTW[..., narrow.kept]], dim=-1)
        statistics.update(rows_BTZ.flatten(0, -2))
    statistics.check(reader.label)
    setattr(reader.owner, reader.norm_name, narrow)
    assert statistics.gram is not None
    return narrow, statistics.gram


def _fit_readers(reader: Reader, gram_ZZ: Tensor, kept: Sequence[int], *, refitted: bool) -> float:
    """Refit the projections behind a norm to the kept channels; return their joint error."""
    columns = range(len(gram_ZZ) - len(kept), len(gram_ZZ))
    weight_OW = torch.cat([projection.weight for projection in reader.projections])
    weight_OK = weight_OW[:, kept]
    # Of `[d, v]` the kept columns read `v`, and all of them read `d`: together, the full norm's output.
    weight_OZ = torch.cat([weight_OW, weight_OK], dim=1)
    if refitted:
        weight_OK = refit(weight_OZ, gram_ZZ, columns, damping=DAMPING)
        rows = [len(projection.weight) for projection in reader.projections]
        for projection, part_OK in zip(reader.projections, weight_OK.split(rows), strict=True):
            projection.weight[:, kept] = part_OK.to(projection.weight.dtype)
    return relative_error(weight_OZ, weight_OK, gram_ZZ, columns)


def _fit_head(model: RootsWithHead, norm: NarrowNorm, gram_ZZ: Tensor) -> None:
    """Refit the head to the kept channels; for a tied head, refit the norm's gain instead."""
    assert isinstance(model.lm_head, nn.Linear)
    head_VW, kept = model.lm_head.weight, norm.kept
    if model.config.tie_word_embeddings:
        scales_K = refit_scales(head_VW.T @ head_VW, gram_ZZ, kept, damping=DAMPING)
        norm.multiply(scales_K.to(head_VW.dtype))
        return
    columns = range(len(gram_ZZ) - len(kept), len(gram_ZZ))
    for rows_OW in head_VW.split(HEAD_ROWS):
        rows_OZ = torch.cat([rows_OW, rows_OW[:, kept]], dim=1)
        rows_OW[:, kept] = refit(rows_OZ, gram_ZZ, columns, damping=DAMPING).to(head_VW.dtype)
