"""What each layer's shapes would cost, in nats of divergence per token, measured on the uncut model.

Shape legend: W hidden size, C input channels of a projection, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roots_compress.data.windows import PackedWindows
from roots_compress.model.calibration import ResidualStream
from roots_compress.model.gradients import observe_gradients
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.prune.layerwise import DAMPING, cut_projections, input_gram
from roots_compress.prune.scores import divergence
from roots_compress.prune.surgeon import Operation, error_curve, head_errors

FISHER_WINDOWS = 8
"""Calibration windows for the Fisher information: its backward pass costs far more than a Gram matrix."""
DROP_WINDOWS = 4
"""Calibration windows for the effect of dropping a layer: the model runs half once for each layer."""
SCORED_EVERY = 4
"""Of those windows' tokens, one in this many is judged, at the cost of its logits over the vocabulary."""
FISHER_RIDGE = 1e-6


@dataclass(frozen=True)
class LayerCosts:
    """What the shapes of one layer cost, in nats per token; they add up, as far as small costs do."""

    attention: dict[tuple[int, int], float]
    """By key/value groups and the query heads of each group."""
    mlp: dict[int, float]
    """By MLP channels, at multiples."""


@torch.no_grad()
def layer_costs(
    model: RootsForCausalLM, windows: PackedWindows, *, multiple_of: int, device: str
) -> Iterator[LayerCosts]:
    """Yield each layer's costs, every narrower shape refitted as the surgeon does it.

    To second order, an error `e` in what a half-layer adds to the residual stream moves the predictions by
    `e F e / 2` nats, with the Fisher information `F` there. The errors' second moment comes from the Gram
    matrix of the projection's input and is taken to be independent of `F`: K-FAC (Martens and Grosse 2015,
    arXiv:1503.05671), as the LLM Surgeon (van der Ouderaa et al. 2023, arXiv:2312.17244) uses it for
    structured pruning.

    Raises:
        StageError: activations or the loss are NaN or infinite.
    """
    fishers = output_fishers(model, windows[:FISHER_WINDOWS], device=device)
    stream = ResidualStream(model, windows, device=device)
    tokens = windows.input_ids.size

    def begin(name: str, projection: nn.Linear, units: int, contributions: Iterator[Tensor]) -> Operation:
        gram_CC = input_gram(projection, name, contributions) / (2 * tokens)
        weight_WC = _factor(fishers.pop(name)).T @ projection.weight.double()
        return Operation.begin(weight_WC, gram_CC, units, damping=DAMPING)

    for index, layer in enumerate(model.model.layers):
        name, attention, down = f"model.layers.{index}.", layer.self_attn, layer.mlp.down_proj
        contributions = stream.attention(layer, index)
        groups = begin(name + "self_attn.o_proj", attention.o_proj, attention.num_kv_heads, contributions)
        stream.add(stream.attention(layer, index))
        channels = begin(name + "mlp.down_proj", down, down.in_features, stream.mlp(layer))
        stream.add(stream.mlp(layer))
        yield LayerCosts(
            head_errors(groups, attention.num_heads // attention.num_kv_heads),
            error_curve(channels, multiple_of),
        )


def output_fishers(model: RootsForCausalLM, windows: PackedWindows, *, device: str) -> dict[str, Tensor]:
    """Return the Fisher information of what every half-layer adds to the residual stream, `WW`, per token.

    The second moment of the gradients of the predictions' log-likelihood, at labels that the model itself
    predicts (drawn with a fixed seed).
    """
    fishers: dict[str, Tensor] = {}

    def observer(name: str, _inputs: Tensor, gradient_TW: Tensor) -> None:
        gradient_TW = gradient_TW.double()
        moment_WW = gradient_TW.T @ gradient_TW / windows.input_ids.size
        fishers[name] = fishers[name] + moment_WW if name in fishers else moment_WW

    labels = torch.Generator().manual_seed(0)
    observe_gradients(model, windows, cut_projections(model), observer, sampled=labels, device=device)
    return fishers


@torch.no_grad()
def layer_divergences(model: RootsForCausalLM, windows: PackedWindows, *, device: str) -> list[float]:
    """Return how far the predictions move when each layer alone is left out, in nats per token.

    Layers are judged by the output without them, as in SLEB (Song et al. 2024, arXiv:2402.09025), there by
    the loss, and not by what they change in the stream (block influence, Men et al. 2024, arXiv:2403.03853).
    """
    stream = ResidualStream(model, windows[:DROP_WINDOWS], device=device)
    layers = list(enumerate(model.model.layers))

    def predictions(fork: ResidualStream) -> Tensor:
        rows = torch.cat([hidden_BTW[:, ::SCORED_EVERY].flatten(0, 1) for hidden_BTW in fork.hidden])
        found_RV: Tensor = model.project(model.model.norm(rows.to(device)))
        return found_RV

    def run(fork: ResidualStream, start: int) -> Tensor:
        for index, layer in layers[start:]:
            fork.advance(layer, index)
        return predictions(fork)

    reference_RV = run(stream.fork(), 0)
    found = []
    for index, layer in layers:
        found.append(divergence(reference_RV, run(stream.fork(), index + 1)))
        stream.advance(layer, index)
    return found


def _factor(fisher_WW: Tensor) -> Tensor:
    """Return `L` with `L @ L.T` the Fisher information, a small ridge added; zero where it is."""
    mean = fisher_WW.diagonal().mean()
    if mean == 0:
        return fisher_WW
    damped_WW = fisher_WW.clone()
    damped_WW.diagonal().add_(FISHER_RIDGE * mean)
    factor_WW: Tensor = torch.linalg.cholesky(damped_WW)
    return factor_WW
