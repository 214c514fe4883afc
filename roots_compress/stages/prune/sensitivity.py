"""What each layer's shapes would cost, in nats of divergence per token, measured on the uncut model.

Shape legend: W hidden size, C input channels of a projection, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import ResidualStream
from roots_compress.calibration.gradients import observe_gradients
from roots_compress.data.windows import PackedWindows
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.progress import Place, bar
from roots_compress.stages.prune.held_inputs import passed_gram
from roots_compress.stages.prune.layerwise import DAMPING, cut_projections
from roots_compress.stages.prune.refit import refit
from roots_compress.stages.prune.scores import divergence
from roots_compress.stages.prune.surgeon import Operation, head_errors, narrowing

FISHER_WINDOWS = 8
"""Calibration windows for the Fisher information: its backward pass costs far more than a Gram matrix."""
TRIAL_WINDOWS = 32
"""Calibration windows for the trial cuts. What one costs is known to within a tenth by them, as a rule, where
eight leave a fifth to a quarter (`benchmarks/shape_costs.py`, SmolLM2)."""
DROP_WINDOWS = 4
"""Calibration windows for the effect of dropping a layer: the model runs half once for each layer."""
SCORED_EVERY = 4
"""Of those windows' tokens, one in this many is judged, at the cost of its logits over the vocabulary."""
FISHER_RIDGE = 1e-6
TRIED_WIDTH = 3 / 4
"""Of an MLP's channels: the width at which its costs are held against the gradients."""


@dataclass(frozen=True)
class Trial:
    """One cut of a projection, by which the costs of all its cuts are held against the model's gradients."""

    change_WC: Tensor
    """What leaves the weights: those of the channels that go, and what the refit changes in the others."""
    cost: float
    """As estimated, in nats per token."""


@dataclass(frozen=True)
class LayerCosts:
    """What the shapes of one layer cost, in nats per token; they add up, as far as small costs do."""

    attention: dict[tuple[int, int], float]
    """By key/value groups and the query heads of each group."""
    mlp: dict[int, float]
    """By MLP channels, at multiples."""
    trials: tuple[Trial | None, Trial | None] = (None, None)
    """Of the output projection and of the MLP's; None where nothing can be cut."""


@torch.no_grad()
def layer_costs(
    model: RootsForCausalLM, windows: PackedWindows, *, multiple_of: int, device: str
) -> Iterator[LayerCosts]:
    """Yield each layer's costs, every narrower shape refitted as the surgeon does it.

    To second order, an error `e` in what a half-layer adds to the residual stream moves the predictions by
    `e F e / 2` nats, with the Fisher information `F` there. The errors' second moment comes from the Gram
    matrix of the projection's input and is taken to be independent of `F`: K-FAC (Martens and Grosse 2015,
    arXiv:1503.05671), as the LLM Surgeon (van der Ouderaa et al. 2023, arXiv:2312.17244) uses it for
    structured pruning. `held_against_gradients` makes up for that independence.

    Raises:
        StageError: activations or the loss are NaN or infinite.
    """
    fishers = output_fishers(model, windows[:FISHER_WINDOWS], device=device)
    stream = ResidualStream(model, windows, device=device)
    tokens = windows.input_ids.size

    for index, layer in enumerate(model.model.layers):
        attention, down = layer.self_attn, layer.mlp.down_proj
        output, groups = attention.o_proj, attention.num_kv_heads
        name = f"model.layers.{index}.self_attn.o_proj"
        inputs = stream.attention_inputs(layer, index)
        gram_CC = passed_gram(name, output, inputs, stream) / (2 * tokens)
        operation = _begin(output, gram_CC, fishers.pop(name), groups)
        heads = head_errors(operation, attention.num_heads // groups)
        trials = [_trial(output, gram_CC, _first_cut(operation, attention.num_heads // groups))]

        name = f"model.layers.{index}.mlp.down_proj"
        gram_CC = passed_gram(name, down, stream.mlp_inputs(layer), stream) / (2 * tokens)
        errors: dict[int, float] = {}
        tried: Operation | None = None
        for operation in narrowing(_begin(down, gram_CC, fishers.pop(name), down.in_features), multiple_of):
            errors[len(operation.units)] = operation.lost
            if tried is None and len(operation.units) <= TRIED_WIDTH * down.in_features:
                tried = operation
        trials.append(_trial(down, gram_CC, tried))
        yield LayerCosts(heads, errors, (trials[0], trials[1]))


def _begin(projection: nn.Linear, gram_CC: Tensor, fisher_WW: Tensor, units: int) -> Operation:
    weight_WC = _factor(fisher_WW).T @ projection.weight.double()
    return Operation.begin(weight_WC, gram_CC, units, damping=DAMPING)


def _first_cut(operation: Operation, queries: int) -> Operation | None:
    """Return attention's output projection without a query head of each group, or else without a group."""
    groups = len(operation.units)
    if queries > 1:
        every = torch.arange(groups * queries, device=operation.units.device)
        return replace(operation, units=every).without_cheapest(1, groups=groups)
    return operation.without_cheapest(1) if groups > 1 else None


def _trial(projection: nn.Linear, gram_CC: Tensor, cut: Operation | None) -> Trial | None:
    """Return what a cut changes in a projection's weights; None where there is none."""
    if cut is None:
        return None
    kept = (cut.units[:, None] * cut.size + torch.arange(cut.size, device=cut.units.device)).flatten()
    change_WC = projection.weight.detach().double()
    change_WC[:, kept] -= refit(projection.weight, gram_CC, kept.tolist(), damping=DAMPING)
    return Trial(change_WC.float(), cut.lost)


def held_against_gradients(
    model: RootsForCausalLM,
    costs: Sequence[LayerCosts],
    windows: PackedWindows,
    *,
    seed: int = 0,
    device: str,
    console: Place,
) -> list[LayerCosts]:
    """Return the costs, those of each half-layer scaled so that its trial costs what the gradients say.

    An error and the gradient at the same token are not independent: the few tokens with massive activations
    hold most of an error, and hardly move the predictions, and where heads matter the gradients are large. To
    second order a change `D` of the weights costs the mean of `(g D x)^2 / 2` over tokens, with both of one
    token: the empirical curvature that K-FAC splits in two. One cut of each projection is judged so.

    Args:
        model: uncut, on the device.
        costs: of `layer_costs`, on the same text.
        windows: calibration text.
        seed: draws the labels that make the gradients' second moment the Fisher information.
        device: where to compute.
        console: shows progress.

    Raises:
        StageError: the loss is NaN or infinite.
    """
    names = cut_projections(model)
    trials = dict(zip(names, (trial for each in costs for trial in each.trials), strict=True))
    judged = {name: 0.0 for name, trial in trials.items() if trial is not None}
    windows = windows[:TRIAL_WINDOWS]

    def observer(name: str, inputs_TC: Tensor, gradient_TW: Tensor) -> None:
        trial = trials[name]
        assert trial is not None
        moved_T = ((inputs_TC @ trial.change_WC.T) * gradient_TW).sum(dim=-1)
        judged[name] += float(moved_T.double().square().sum()) / (2 * windows.input_ids.size)

    labels = torch.Generator().manual_seed(seed)
    with bar(console, "taking gradients") as progress:
        observe_gradients(
            model, windows, list(judged), observer, sampled=labels, device=device, progress=progress
        )

    def scale(name: str) -> float:
        trial = trials[name]
        return 1.0 if trial is None or trial.cost <= 0 else judged[name] / trial.cost

    return [
        LayerCosts(
            {shape: cost * scale(output) for shape, cost in each.attention.items()},
            {width: cost * scale(down) for width, cost in each.mlp.items()},
        )
        for each, output, down in zip(costs, names[::2], names[1::2], strict=True)
    ]


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

    def run(fork: ResidualStream, start: int) -> Tensor:
        for index, layer in layers[start:]:
            fork.advance(layer, index)
        return sampled_predictions(model, fork)

    reference_RV = run(stream.fork(), 0)
    found = []
    for index, layer in layers:
        found.append(divergence(reference_RV, run(stream.fork(), index + 1)))
        stream.advance(layer, index)
    return found


def sampled_predictions(model: RootsForCausalLM, stream: ResidualStream) -> Tensor:
    """Return the logits `RV` at one in `SCORED_EVERY` tokens of a stream that has passed the last layer."""
    rows_RW = torch.cat([hidden_BTW[:, ::SCORED_EVERY].flatten(0, 1) for hidden_BTW in stream.hidden])
    found_RV: Tensor = model.project(model.model.norm(rows_RW.to(stream.device)))
    return found_RV


def _factor(fisher_WW: Tensor) -> Tensor:
    """Return `L` with `L @ L.T` the Fisher information, a small ridge added; zero where it is."""
    mean = fisher_WW.diagonal().mean()
    if mean == 0:
        return fisher_WW
    damped_WW = fisher_WW.clone()
    damped_WW.diagonal().add_(FISHER_RIDGE * mean)
    factor_WW: Tensor = torch.linalg.cholesky(damped_WW)
    return factor_WW
