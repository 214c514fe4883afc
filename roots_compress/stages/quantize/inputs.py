"""The places of a layer where one input is quantized: the linear layers that read it, and what produces it.

Shape legend: C channels of a site's input, S sampled rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import InputStatistics, ResidualStream, observed
from roots_compress.models.layers import RootsLayer

SAMPLED_ROWS = 512
"""Input rows kept at each site, on which output errors are measured."""
SCALABLE_ACTIVATIONS = ("relu",)
"""Activations f with f(x / s) = f(x) / s for positive s, through which a scale may pass without a gate."""


@dataclass(frozen=True)
class Site:
    """Linear layers that read the same input.

    Attributes:
        consumers: the linear layers, under their names within the transformer layer.
        producers: parameters whose first axis makes the input's channels; none where no scale can be folded.
        repeats: how often the producers' channels are repeated in the input, head by head (grouped values).
        head_dim: channels in a head; without meaning where nothing is repeated.
        writes: whether the outputs are added to the residual stream, where the next norm divides them by
            the size of what they were added to.
    """

    consumers: Mapping[str, nn.Linear]
    producers: tuple[Tensor, ...] = ()
    repeats: int = 1
    head_dim: int = 1
    writes: bool = False

    @property
    def name(self) -> str:
        """The first consumer's name."""
        return next(iter(self.consumers))

    def shared(self, values_C: Tensor) -> Tensor:
        """Return for each channel the largest value among those made by the same producer's channel."""
        if self.repeats == 1:
            return values_C
        heads = values_C.view(-1, self.repeats, self.head_dim)
        return heads.amax(dim=1, keepdim=True).expand_as(heads).flatten()

    @torch.no_grad()
    def fold(self, scale_C: Tensor) -> None:
        """Divide the input's channels by a scale, in place; the consumers' columns make up for it exactly.

        The scale must be positive, and equal where channels share a producer's (see `shared`).
        """
        produced = scale_C
        if self.repeats > 1:
            produced = scale_C.view(-1, self.repeats, self.head_dim)[:, 0].flatten()
        for tensor in self.producers:
            tensor.div_(produced.to(tensor.dtype).view(-1, *(1,) * (tensor.ndim - 1)))
        for linear in self.consumers.values():
            linear.weight.mul_(scale_C.to(linear.weight.dtype))


def attention_sites(layer: RootsLayer) -> list[Site]:
    """Return the sites of the attention half: query, key and value; then the output projection."""
    attention = layer.self_attn
    projections = {f"self_attn.{name}_proj": _linear(attention, f"{name}_proj") for name in "qkv"}
    return [
        Site(projections, _parameters(layer.input_layernorm)),
        Site(
            {"self_attn.o_proj": _linear(attention, "o_proj")},
            _parameters(attention.v_proj),
            repeats=attention.num_heads // attention.num_kv_heads,
            head_dim=attention.head_dim,
            writes=True,
        ),
    ]


def mlp_sites(layer: RootsLayer, activation: str) -> list[Site]:
    """Return the sites of the MLP half: gate and up; then the down projection."""
    mlp = layer.mlp
    names = ("gate_proj", "up_proj") if mlp.gated else ("up_proj",)
    scalable = mlp.gated or activation in SCALABLE_ACTIVATIONS
    return [
        Site(
            {f"mlp.{name}": _linear(mlp, name) for name in names}, _parameters(layer.post_attention_layernorm)
        ),
        Site(
            {"mlp.down_proj": _linear(mlp, "down_proj")},
            _parameters(mlp.up_proj) if scalable else (),
            writes=True,
        ),
    ]


def _linear(block: nn.Module, name: str) -> nn.Linear:
    linear = block.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def _parameters(module: nn.Module) -> tuple[Tensor, ...]:
    return tuple(module.parameters(recurse=False))


@dataclass
class SiteInput:
    """What a site reads on the calibration text: streamed statistics and sampled rows, `SC`.

    The rows of a site that writes are divided by the norm of the residual stream after it, so that an error
    in the outputs counts as much as the next norm lets through. A few tokens carry activations a thousand
    times the usual (Sun et al. 2024, "Massive Activations in Large Language Models"): left as they are, their
    squares would be all that a Gram matrix knows, and the weights that serve every other token would be
    rounded blindly.
    """

    statistics: InputStatistics
    sample_SC: Tensor

    @property
    def mean_square(self) -> Tensor:
        """Mean square of each channel, float32."""
        return (self.statistics.squared_norms / max(1, self.statistics.rows)).float()


def observe_sites(
    sites: Sequence[Site], stream: Iterable[Tensor], *, gram: bool, name: str, total_rows: int
) -> list[SiteInput]:
    """Exhaust a forward pass of half a layer and return what each site read.

    Args:
        sites: those to listen at.
        stream: runs the half-layer batch by batch, and yields the residual stream after it, `BTW`.
        gram: whether to sum up Gram matrices as well.
        name: of the layer, for errors.
        total_rows: how many rows will pass; the sample is taken evenly from them.

    Raises:
        StageError: a site read NaN or an infinity.
    """
    rows: dict[str, Tensor] = {}
    statistics: dict[str, InputStatistics] = {}
    samples: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    stride = max(1, total_rows // SAMPLED_ROWS)
    modules = {site.name: site.consumers[site.name] for site in sites}
    with torch.no_grad(), observed(modules, rows.__setitem__):
        for after_BTW in stream:
            norm_R1 = after_BTW.flatten(0, -2).float().norm(dim=1, keepdim=True)
            norm_R1 = torch.where(norm_R1 > 0, norm_R1, 1.0)
            for site in sites:
                rows_RC = rows.pop(site.name).float()
                if site.writes:
                    rows_RC = rows_RC / norm_R1
                seen = statistics.get(site.name)
                if seen is None:
                    seen = InputStatistics(rows_RC.shape[-1], gram=gram, device=rows_RC.device)
                    statistics[site.name] = seen
                first = -seen.rows % stride
                samples[site.name].append(rows_RC[first::stride].clone())
                seen.update(rows_RC)
    for site in sites:
        statistics[site.name].check(f"{name}.{site.name}")
    return [SiteInput(statistics[site.name], torch.cat(samples[site.name])) for site in sites]


@dataclass(frozen=True)
class Half:
    """Half a layer: its sites, and its contributions to the residual stream, computed when iterated."""

    sites: list[Site]
    forward: Callable[[], Iterable[Tensor]]

    def observe(
        self, stream: ResidualStream, layer_name: str, *, gram: bool = True, advance: bool = False
    ) -> list[SiteInput]:
        """Return what each site reads on the stream.

        Args:
            stream: it stays where it is, unless it is to advance past this half.
            layer_name: for errors.
            gram: whether to sum up Gram matrices as well.
            advance: whether to move the stream along, where what runs now is what it goes on from.
        """
        moved: list[Tensor] = []

        def after() -> Iterator[Tensor]:
            for hidden_BTW, contribution_BTW in zip(stream.hidden, self.forward(), strict=True):
                after_BTW = hidden_BTW.to(stream.device) + contribution_BTW
                if advance:
                    moved.append(after_BTW.cpu())
                yield after_BTW

        total_rows = sum(hidden_BTW[..., 0].numel() for hidden_BTW in stream.hidden)
        seen = observe_sites(self.sites, after(), gram=gram, name=layer_name, total_rows=total_rows)
        if advance:
            stream.hidden = moved
        return seen


def halves(stream: ResidualStream, layer: RootsLayer, index: int, activation: str) -> tuple[Half, Half]:
    """Return the attention half and the MLP half of a layer."""
    return (
        Half(attention_sites(layer), lambda: stream.attention(layer, index)),
        Half(mlp_sites(layer, activation), lambda: stream.mlp(layer)),
    )
