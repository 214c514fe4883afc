"""What a projection reads of calibration text, held from the pass that measures it until after the cut.

A cut takes input channels out of a projection and leaves what the others read as it was. So the cut
projection can be run on what was held, without the layers before it: in a gated MLP, two thirds of its
products.

Shape legend: B windows in a batch, T tokens, W hidden size, C input channels, K those that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import InputStatistics, ResidualStream, observed
from roots_compress.models.blocks.base import Half
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.base import Axis

HELD_SHARE = 0.5
"""Of the model's bytes: what may be held. Batches beyond it run through their block again."""


class HeldInputs:
    """The inputs of one projection, `BTC` for each batch from the first on, as many as fit.

    Args:
        limit_bytes: how much may be held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._held: list[Tensor] = []

    def passing(self, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the inputs, and hold them as long as there is room."""
        full = False
        for inputs_BTC in inputs:
            self._left -= inputs_BTC.nbytes
            full = full or self._left < 0
            if not full:
                self._held.append(inputs_BTC)
            yield inputs_BTC

    def contributions(
        self,
        projected: Callable[[Tensor], Tensor],
        columns: Sequence[int],
        anew: Callable[[int], Iterator[Tensor]],
    ) -> Iterator[Tensor]:
        """Yield what the cut block adds to each batch, `BTW`, and free what was held.

        Args:
            projected: returns it for `columns` of what was held, in this order.
            anew: runs the cut block on the batches from a number on.
        """
        held = len(self._held)
        index_K = torch.as_tensor(columns)
        for number in range(held):
            inputs_BTC, self._held[number] = self._held[number], torch.empty(0)
            # Many times as fast as `index_select` along the last axis.
            yield projected(inputs_BTC.gather(-1, index_K.expand(*inputs_BTC.shape[:-1], -1)))
        yield from anew(held)


def held_bytes(model: RootsWithHead, device: str) -> int:
    """Return how much may be held: nothing on a device whose memory is its own, and which is fast."""
    if device != "cpu":
        return 0
    return int(HELD_SHARE * sum(parameter.nbytes for parameter in model.parameters()))


def input_gram(name: str, projection: nn.Linear, inputs: Iterable[Tensor]) -> Tensor:
    """Return the Gram matrix `CC` of what a projection reads, `BTC` for each batch.

    Raises:
        StageError: an input is NaN or infinite.
    """
    statistics = InputStatistics(projection.in_features, gram=True, device=projection.weight.device)
    for inputs_BTC in inputs:
        statistics.update(inputs_BTC.flatten(0, -2))
    return checked_gram(name, statistics)


def passed_gram(name: str, half: Half, projection: nn.Linear, stream: ResidualStream) -> Tensor:
    """Move the stream past a block as it is, and return the Gram matrix of what its projection read.

    Raises:
        StageError: an input is NaN or infinite.
    """
    statistics = InputStatistics(projection.in_features, gram=True, device=stream.device)

    def contributions() -> Iterator[Tensor]:
        for inputs_BTC in stream.inner(half):
            statistics.update(inputs_BTC.flatten(0, -2))
            yield stream.given(half, projection, inputs_BTC)

    stream.add(half, contributions())
    return checked_gram(name, statistics)


def part_statistics(half: Half, stream: ResidualStream, axis: Axis) -> dict[str, InputStatistics]:
    """Return the sums over what each part of an axis reads, Gram matrices among them, by its name.

    Each row counts times the factor on what the part makes of it.
    """
    read = _empty_statistics(half, stream, axis.parts)
    for read_BTW in stream.read(half):
        for part, inputs_NC in half.block.read_by_parts(read_BTW):
            read[part].update(inputs_NC)
    return read


def unrouted_statistics(
    half: Half, stream: ResidualStream, parts: Collection[str]
) -> dict[str, InputStatistics]:
    """Return the sums over what these parts would read if every row were theirs, by name."""
    read = _empty_statistics(half, stream, parts)
    linears = {part: half.block.linear(part) for part in parts}
    with observed(linears, lambda part, inputs_RC: read[part].update(inputs_RC)):
        for read_BTW in stream.read(half) if parts else ():
            half.block.run_on_all(parts, read_BTW)
    return read


def _empty_statistics(
    half: Half, stream: ResidualStream, parts: Collection[str]
) -> dict[str, InputStatistics]:
    return {
        part: InputStatistics(half.block.linear(part).in_features, gram=True, device=stream.device)
        for part in parts
    }


def unit_order(half: Half, stream: ResidualStream, axis: Axis) -> Tensor:
    """Return how much each unit of an axis without a projection gives for each of its tokens, `(units,)`."""
    scores_U = tokens_U = torch.zeros(axis.units, device=stream.device)
    for read_BTW in stream.read(half):
        given_U, weights_U = half.block.shares(read_BTW, axis.name)
        scores_U, tokens_U = scores_U + given_U, tokens_U + weights_U
    return scores_U / tokens_U.clamp(min=1)


def checked_gram(name: str, statistics: InputStatistics) -> Tensor:
    """Return the Gram matrix of a projection's inputs once all were seen.

    Raises:
        StageError: an input is NaN or infinite.
    """
    statistics.check(name)
    assert statistics.gram is not None
    return statistics.gram
