"""The inputs of a block's linear layers: their producers, and their statistics on calibration text.

Shape legend: C channels of an input, R its rows (tokens), S sampled rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import InputStatistics, ResidualStream, observed
from roots_compress.models.blocks.base import Half, Route
from roots_compress.models.ops.base import Input
from roots_compress.models.quantized import ACTIVATION_LEVELS

SAMPLED_ROWS = 512
"""Rows of each input that are kept to measure output errors."""
MOST_SPREAD = 3.5
"""One scale serves all tokens if the largest of their maxima is at most this many times the median one. A
typical token then keeps at least six of its eight bits."""


@dataclass(frozen=True)
class BoundInput:
    """An input of a block, with the modules named in its specification.

    Attributes:
        spec: its specification in the block.
        consumers: the linear layers that read it, under their names within the transformer layer.
        producers: parameters whose first axis gives the input's channels; empty if no scale can be folded, or
            if it is folded with the block before.
        others: the linear layers of the next block's inputs from the same norm, by the inputs' names.
    """

    spec: Input
    consumers: Mapping[str, nn.Linear]
    producers: tuple[Tensor, ...] = ()
    others: Mapping[str, list[nn.Linear]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The first consumer's name."""
        return next(iter(self.consumers))

    @property
    def width(self) -> int:
        """Its channels."""
        return self.consumers[self.name].in_features

    @property
    def readers(self) -> list[nn.Linear]:
        """All linear layers whose columns a scale multiplies."""
        return [*self.consumers.values(), *(linear for each in self.others.values() for linear in each)]

    def shared(self, values_C: Tensor) -> Tensor:
        """Return for each channel the largest value among those from the same producer channel."""
        if self.spec.repeats == 1:
            return values_C
        heads = values_C.view(-1, self.spec.repeats, self.spec.head_dim)
        return heads.amax(dim=1, keepdim=True).expand_as(heads).flatten()

    @torch.no_grad()
    def fold(self, scale_C: Tensor) -> None:
        """Divide the input's channels by a scale, in place; the readers' columns are multiplied by it.

        The scale must be positive, and equal for channels from one producer channel (see `shared`).
        """
        produced = scale_C
        if self.spec.repeats > 1:
            produced = scale_C.view(-1, self.spec.repeats, self.spec.head_dim)[:, 0].flatten()
        for tensor in self.producers:
            tensor.div_(produced.to(tensor.dtype).view(-1, *(1,) * (tensor.ndim - 1)))
        for linear in self.readers:
            linear.weight.mul_(scale_C.to(linear.weight.dtype))


def bound_inputs(half: Half) -> Iterator[BoundInput]:
    """Yield the inputs of a block's linear layers, in the order in which they are computed.

    A scale for readers of the stream is folded into the norm before the block, if there is one. A norm shared
    by several blocks is scaled once, with the first block; the weights of all of them are multiplied.
    """
    for each in half.block.spec.inputs():
        makers: list[nn.Module] = [half.block.linear(name) for name in each.producers]
        others: dict[str, list[nn.Linear]] = {}
        if each.of_stream and half.pre_norm is not None and half.norm_owner == half.name:
            makers.append(half.pre_norm)
            own = [name for name in half.block.spec.readers if name not in each.consumers]
            others = {f"{half.name}.{name}": [half.block.linear(name)] for name in own}
            others |= {
                f"{name}.{block.spec.readers[0]}": block.readers() for name, block in half.sharing.items()
            }
        yield BoundInput(
            each,
            {f"{half.name}.{name}": half.block.linear(name) for name in each.consumers},
            tuple(tensor for maker in makers for tensor in maker.parameters(recurse=False)),
            others,
        )


class SeenInput:
    """Data of an input on calibration text: streamed statistics, and evenly sampled rows.

    One row in `stride` is kept.
    """

    def __init__(self, width: int, *, stride: int = 1, gram: bool = False, device: str = "cpu") -> None:
        self.statistics = InputStatistics(width, gram=gram, device=device)
        self._stride = stride
        self._samples = [torch.empty(0, width, device=device)]
        self._peaks: list[Tensor] = []

    def update(self, rows_RC: Tensor, peak_R: Tensor | None = None) -> None:
        """Add rows; if they were divided by a norm, also the largest magnitude of each before that."""
        self._peaks.append(rows_RC.abs().amax(dim=1) if peak_R is None else peak_R)
        first = -self.statistics.rows % self._stride
        self._samples.append(rows_RC[first :: self._stride].clone())
        self.statistics.update(rows_RC)

    @property
    def sample(self) -> Tensor:
        """The sampled rows, `SC`."""
        return torch.cat(self._samples)

    @property
    def fixed_scale(self) -> Tensor | None:
        """The scalar step for all tokens; None if some tokens are much larger than most."""
        peak_R = torch.cat(self._peaks) if self._peaks else torch.zeros(1)
        largest = peak_R.max()
        fits = 0 < largest <= MOST_SPREAD * peak_R.median()
        return largest / ACTIVATION_LEVELS if fits else None

    @property
    def mean_square(self) -> Tensor:
        """Mean square of each channel, float32."""
        return (self.statistics.squared_norms / max(1, self.statistics.rows)).float()


def observe(
    half: Half, stream: ResidualStream, layer: str, *, gram: bool = True, advance: bool = False
) -> list[SeenInput]:
    """Return the data of each input of a block, in the order of `bound_inputs`.

    Rows of an input whose readers write to the stream are divided by the norm of the next normalisation's
    input, so that output errors count as much as they do after it. A few tokens carry activations a thousand
    times the usual (Sun et al. 2024, "Massive Activations in Large Language Models"): undivided, their
    squares would dominate the Gram matrix, and rounding would ignore all other tokens. Behind a router they
    are multiplied by the router's weight too, for the same reason (MoEQuant, Chen et al. 2025,
    arXiv:2505.03804).

    Rows that a router sends to an expert are its own. An expert with fewer rows than input channels, whose
    Gram matrix would be singular, is calibrated on all rows instead, as LLM Compressor does with every expert
    (`calibrate_all_experts`).

    Args:
        half: the unquantized block, with its norms.
        stream: the residual stream; it advances past this block only with `advance`.
        layer: the layer's name, for errors.
        gram: whether to compute Gram matrices too.
        advance: whether to move the stream past the block in its current state.

    Raises:
        StageError: an input holds NaN or an infinity.
    """
    inputs = list(bound_inputs(half))
    passing = _Passing(inputs, sum(each[..., 0].numel() for each in stream.hidden), gram, stream.device)
    modules: dict[str, nn.Module] = {each.name: each.consumers[each.name] for each in inputs}
    if half.post_norm is not None:
        modules[_GIVEN] = half.post_norm
    norms, given = [], []
    with torch.no_grad(), observed(modules, passing.see):
        for batch, contribution_BTW in enumerate(stream.contributions(half)):
            before_BTW = stream.hidden[batch].to(stream.device)
            after_BTW = before_BTW + contribution_BTW
            if batch in stream.waiting:
                after_BTW = after_BTW + stream.waiting[batch].to(stream.device)
            normed_RW = passing.rows.pop(_GIVEN, after_BTW.flatten(0, -2))
            norm_R1 = normed_RW.float().norm(dim=1, keepdim=True)
            norms.append(torch.where(norm_R1 > 0, norm_R1, 1.0))
            routes: Mapping[str, Route] = {}
            if any(each.spec.share < 1 for each in inputs):
                routes = half.block.routes(half.read(before_BTW))
            passing.take(inputs, norms[-1], {f"{half.name}.{name}": route for name, route in routes.items()})
            if advance:
                given.append(contribution_BTW.cpu())
    starved = [each for each in inputs if each.spec.share < 1 and passing.begin_again_if_few(each)]
    names = {name.removeprefix(f"{half.name}.") for each in starved for name in each.consumers}
    with torch.no_grad(), observed({each.name: modules[each.name] for each in starved}, passing.see):
        for hidden_BTW, norm_R1 in zip(stream.hidden if starved else (), norms, strict=False):
            half.block.run_on_all(names, half.read(hidden_BTW.to(stream.device)))
            passing.take(starved, norm_R1, {})
    for name, seen in passing.seen.items():
        seen.statistics.check(f"{layer}.{name}")
    if advance:
        stream.add(half, (each.to(stream.device) for each in given))
    return list(passing.seen.values())


_GIVEN = ""
"""Name of a block's output among the names of its inputs."""


class _Passing:
    """The inputs of a block while text passes.

    Attributes:
        rows: inputs of each linear layer since they were last taken.
        seen: the data of each input.
    """

    def __init__(self, inputs: list[BoundInput], total_rows: int, gram: bool, device: str) -> None:
        self.rows: dict[str, Tensor] = {}
        self._total_rows, self._gram, self._device = total_rows, gram, device
        self.seen = {each.name: self._fresh(each, int(total_rows * each.spec.share)) for each in inputs}

    def _fresh(self, each: BoundInput, rows: int) -> SeenInput:
        stride = max(1, rows // SAMPLED_ROWS)
        return SeenInput(each.width, stride=stride, gram=self._gram, device=self._device)

    def see(self, name: str, rows_RC: Tensor) -> None:
        """Record a linear layer's input; it may run several times."""
        self.rows[name] = torch.cat((self.rows[name], rows_RC)) if name in self.rows else rows_RC

    def take(self, inputs: list[BoundInput], norm_R1: Tensor, routes: Mapping[str, Route]) -> None:
        """Add these inputs' rows of a batch; some may have none."""
        for each in inputs:
            if (rows_RC := self.rows.pop(each.name, None)) is None:
                continue
            rows_RC = rows_RC.float()
            peak_R = rows_RC.abs().amax(dim=1)
            if each.spec.writes and each.name in routes:
                row_N, weight_N = routes[each.name]
                rows_RC = rows_RC * (weight_N[:, None] / norm_R1[row_N])
            elif each.spec.writes:
                rows_RC = rows_RC / norm_R1
            self.seen[each.name].update(rows_RC, peak_R)

    def begin_again_if_few(self, each: BoundInput) -> bool:
        """Discard an input's data if it has fewer rows than channels; return whether it had."""
        few = self.seen[each.name].statistics.rows < each.width
        if few:
            self.seen[each.name] = self._fresh(each, self._total_rows)
        return few
