"""The inputs of a projection on calibration text, held from their measurement until after the cut.

A cut removes input channels of a projection and does not change the others. So the cut projection can run on
the held inputs, without the layers before it: in a gated MLP, this saves two thirds of the products.

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
"""Share of the model's bytes that may be held. Further batches run through their block again."""


class HeldInputs:
    """The inputs of one projection, `BTC` for each batch from the first on, as many as fit.

    Args:
        limit_bytes: the most bytes to hold.
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
        """Yield the cut block's output for each batch, `BTW`, and free the held inputs.

        Args:
            projected: returns the output for `columns` of the held inputs, in this order.
            anew: runs the cut block on the batches from this number on.
        """
        held = len(self._held)
        index_K = torch.as_tensor(columns)
        for number in range(held):
            inputs_BTC, self._held[number] = self._held[number], torch.empty(0)
            # Many times as fast as `index_select` along the last axis.
            yield projected(inputs_BTC.gather(-1, index_K.expand(*inputs_BTC.shape[:-1], -1)))
        yield from anew(held)


def held_bytes(model: RootsWithHead, device: str) -> int:
    """Return how many bytes to hold: none on a GPU, which is fast and has its own memory."""
    if device != "cpu":
        return 0
    return int(HELD_SHARE * sum(parameter.nbytes for parameter in model.parameters()))


def input_gram(name: str, projection: nn.Linear, inputs: Iterable[Tensor]) -> Tensor:
    """Return the Gram matrix `CC` of a projection's inputs, `BTC` for each batch.

    Raises:
        StageError: an input is NaN or infinite.
    """
    statistics = InputStatistics(projection.in_features, gram=True, device=projection.weight.device)
    for inputs_BTC in inputs:
        statistics.update(inputs_BTC.flatten(0, -2))
    return checked_gram(name, statistics)


def passed_gram(name: str, half: Half, projection: nn.Linear, stream: ResidualStream) -> Tensor:
    """Move the stream past an uncut block, and return the Gram matrix of its projection's inputs.

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
    """Return the statistics of the inputs of each part of an axis, with Gram matrices, by name.

    Each row is multiplied by the factor on the part's output.
    """
    read = _empty_statistics(half, stream, axis.parts)
    for read_BTW in stream.read(half):
        for part, inputs_NC in half.block.read_by_parts(read_BTW):
            read[part].update(inputs_NC)
    return read


def unrouted_statistics(
    half: Half, stream: ResidualStream, parts: Collection[str]
) -> dict[str, InputStatistics]:
    """Return the statistics of these parts' inputs if all rows were routed to them, by name."""
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
    """Return the mean output of each unit of an axis without a projection, per token, `(units,)`."""
    scores_U = tokens_U = torch.zeros(axis.units, device=stream.device)
    for read_BTW in stream.read(half):
        given_U, weights_U = half.block.shares(read_BTW, axis.name)
        scores_U, tokens_U = scores_U + given_U, tokens_U + weights_U
    return scores_U / tokens_U.clamp(min=1)


def checked_gram(name: str, statistics: InputStatistics) -> Tensor:
    """Return the Gram matrix of a projection's inputs after all batches.

    Raises:
        StageError: an input is NaN or infinite.
    """
    statistics.check(name)
    assert statistics.gram is not None
    return statistics.gram
