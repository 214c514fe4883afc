"""The costs of each layer's shapes, in nats a prediction, measured on the uncut model.

Shape legend: W hidden size, C input channels of a projection, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from roots_compress.calibration.activations import ResidualStream
from roots_compress.calibration.gradients import observe_gradients, positions_read
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.blocks.base import Half
from roots_compress.models.device import resolve_precision
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import ModelSpec, Place
from roots_compress.progress import bar
from roots_compress.stages.prune.held_inputs import passed_gram
from roots_compress.stages.prune.layerwise import DAMPING, full_name
from roots_compress.stages.prune.plan import step
from roots_compress.stages.prune.refit import refit
from roots_compress.stages.prune.routed_costs import routed_costs
from roots_compress.stages.prune.scores import divergence
from roots_compress.stages.prune.surgeon import Operation, Trial, shapes

FISHER_WINDOWS = 8
"""Calibration windows for the Fisher information: its backward pass costs far more than a Gram matrix."""
TRIAL_WINDOWS = 32
"""Calibration windows for the trial cuts. They usually give a cut's cost to within a tenth; eight give it to
within a fifth to a quarter (`benchmarks/shape_costs.py`, SmolLM2)."""
DROP_WINDOWS = 4
"""Calibration windows for the effect of dropping a layer: the model runs half once for each layer. If heads
read few of their positions, more windows are used, for the same number of predictions."""
SCORED_EVERY = 4
"""If heads read all positions, one in this many is used, because each needs logits over the vocabulary."""
FISHER_RIDGE = 1e-6
TRIED_WIDTH = 3 / 4
"""Share of single channels at which their costs are compared with the gradients."""


@dataclass(frozen=True)
class BlockCosts:
    """Costs of a block's shapes, in nats a prediction; small costs of blocks add up."""

    axes: tuple[str, ...]
    """The axes that were measured."""
    costs: dict[tuple[int, ...], float]
    """Costs by the units of each group of these axes, the full block first."""
    trial: Trial | None = None
    """Trial cut of the block's projection; None if nothing can be cut."""


LayerCosts = Mapping[str, BlockCosts]
"""By block."""


@torch.no_grad()
def layer_costs(
    model: RootsWithHead, windows: PackedWindows, *, multiple_of: int, device: str
) -> Iterator[LayerCosts]:
    """Yield each layer's costs, with every narrower shape refitted by the surgeon.

    To second order, an error `e` in the output of a block's projection changes the predictions by `e F e / 2`
    nats, with the Fisher information `F` there. The errors' second moment comes from the Gram matrix of the
    projection's input and is assumed to be independent of `F`: K-FAC (Martens and Grosse 2015,
    arXiv:1503.05671), as the LLM Surgeon (van der Ouderaa et al. 2023, arXiv:2312.17244) uses it for
    structured pruning. `held_against_gradients` corrects for this assumption.

    Raises:
        StageError: activations or the loss are NaN or infinite.
    """
    fishers = output_fishers(model, windows[:FISHER_WINDOWS], device=device)
    stream = ResidualStream(model, windows, device=device, precision=resolve_precision("auto", device))

    def costs(place: Place, half: Half) -> BlockCosts:
        name, tokens = half.block.spec.projection, windows.input_ids.size
        if not half.block.spec.axes():
            stream.add(half, stream.contributions(half))
            return BlockCosts((), {(): 0.0})
        if name is None:
            axes = tuple(axis.name for axis in half.block.spec.axes())
            found = routed_costs(half, stream, _factor(fishers.pop(place)), tokens, multiple_of=multiple_of)
            stream.add(half, stream.contributions(half))
            return BlockCosts(axes, *found)
        projection = half.block.linear(name)
        gram_CC = passed_gram(f"layer {place.layer}'s {place.name}.{name}", half, projection, stream)
        gram_CC = gram_CC / (2 * tokens)
        return block_costs(half, projection, gram_CC, fishers.pop(place), multiple_of=multiple_of)

    for index, layer in enumerate(stream.passing(model.model.all_layers())):
        yield {half.name: costs(Place(index, half.name), half) for half in layer.halves}


def block_costs(
    half: Half, projection: nn.Linear, gram_CC: Tensor, fisher_WW: Tensor, *, multiple_of: int
) -> BlockCosts:
    """Return the costs of a block's shapes.

    Args:
        gram_CC: of its input, halved, per token.
        fisher_WW: of its output, per token.
        multiple_of: what the number of single channels is a multiple of.
    """
    axes = half.block.spec.axes()
    weight_WC = _factor(fisher_WW).T @ projection.weight.double()
    operation = Operation.begin(weight_WC, gram_CC, axes[0].units, damping=DAMPING)
    costs: dict[tuple[int, ...], float] = {}
    tried: Operation | None = None
    steps, parts = [step(axis, multiple_of) for axis in axes], [axis.each for axis in axes[1:]]
    for kept, cut in shapes(operation, steps, parts, groups=axes[0].groups):
        # The first removed channels of many cost next to nothing.
        most = TRIED_WIDTH * len(operation.units) if operation.size == 1 else projection.in_features - 1
        if tried is None and costs and cut.weight.shape[1] <= most:
            tried = cut
        costs[kept] = cut.lost
    return BlockCosts(tuple(axis.name for axis in axes), costs, _trial(projection, gram_CC, tried))


def _trial(projection: nn.Linear, gram_CC: Tensor, cut: Operation | None) -> Trial | None:
    """Return the change of a projection's weights by a cut; None without a cut."""
    if cut is None:
        return None
    kept = (cut.units[:, None] * cut.size + torch.arange(cut.size, device=cut.units.device)).flatten()
    change_WC = projection.weight.detach().double()
    change_WC[:, kept] -= refit(projection.weight, gram_CC, kept.tolist(), damping=DAMPING)
    change_WC = change_WC.float()
    return Trial(lambda inputs_RC: inputs_RC @ change_WC.T, cut.lost)


def held_against_gradients(
    model: RootsWithHead,
    costs: Sequence[LayerCosts],
    windows: PackedWindows,
    *,
    seed: int = 0,
    device: str,
    events: Events,
) -> list[LayerCosts]:
    """Return the costs, scaled for each block so that its trial cut has the cost given by the gradients.

    An error and the gradient at the same token are not independent: a few tokens with massive activations
    hold most of an error but hardly change the predictions, and gradients are large where heads matter. To
    second order a change `D` of the weights costs the mean of `(g D x)^2 / 2` over tokens, with both of one
    token: the empirical curvature that K-FAC splits in two. One cut of each projection is measured in this
        way.

    `seed` is for sampling the labels, with which the gradients' second moment is the Fisher information.

    Raises:
        StageError: the loss is NaN or infinite.
    """
    names = judged_modules(model.config.spec)
    trials = {name: costs[place.layer][place.name].trial for place, name in names.items()}
    judged = {name: 0.0 for name, trial in trials.items() if trial is not None}
    windows = windows[:TRIAL_WINDOWS]
    read = int(positions_read(model, windows).sum())

    @torch.no_grad()
    def observer(name: str, inputs_TC: Tensor, gradient_TW: Tensor) -> None:
        trial = trials[name]
        assert trial is not None
        moved_T = (trial.lost(inputs_TC) * gradient_TW).sum(dim=-1)
        judged[name] += float(moved_T.double().square().sum()) / (2 * read)

    labels = torch.Generator().manual_seed(seed)
    with bar(events, "taking gradients") as progress:
        observe_gradients(
            model, windows, list(judged), observer, sampled=labels, device=device, progress=progress
        )

    def scaled(place: Place, block: BlockCosts) -> BlockCosts:
        if block.trial is None or block.trial.cost <= 0:
            return replace(block, trial=None)
        factor = judged[names[place]] / block.trial.cost
        return replace(block, costs={kept: cost * factor for kept, cost in block.costs.items()}, trial=None)

    return [
        {name: scaled(Place(index, name), block) for name, block in layer.items()}
        for index, layer in enumerate(costs)
    ]


def output_fishers(model: RootsWithHead, windows: PackedWindows, *, device: str) -> dict[Place, Tensor]:
    """Return the Fisher information of every block's output, `WW`, per token.

    The second moment of the gradients of the predictions' log-likelihood, at labels sampled from the model's
    predictions (with a fixed seed).
    """
    fishers: dict[str, Tensor] = {}
    modules = judged_modules(model.config.spec)

    def observer(name: str, _inputs: Tensor, gradient_TW: Tensor) -> None:
        gradient_TW = gradient_TW.double()
        moment_WW = gradient_TW.T @ gradient_TW / windows.input_ids.size
        fishers[name] = fishers[name] + moment_WW if name in fishers else moment_WW

    labels = torch.Generator().manual_seed(0)
    observe_gradients(model, windows, modules.values(), observer, sampled=labels, device=device)
    return {place: fishers[name] for place, name in modules.items()}


def judged_modules(spec: ModelSpec) -> dict[Place, str]:
    """Return the module with each cuttable block's output: its projection, or the block itself."""
    return {place: full_name(spec, place, op.projection) for place, op in spec.blocks() if op.axes()}


@torch.no_grad()
def layer_divergences(model: RootsWithHead, windows: PackedWindows, *, device: str) -> list[float]:
    """Return the change of the predictions when each layer alone is removed, in nats.

    Layers are scored by the output without them, as in SLEB (Song et al. 2024, arXiv:2402.09025, which uses
    the loss), not by their change of the stream (block influence, Men et al. 2024, arXiv:2403.03853). It is
    infinite for a layer whose keys and values others take.
    """
    judged_NT = positions_read(model, windows)
    if judged_NT.all():
        judged_NT[:, torch.arange(judged_NT.shape[1]) % SCORED_EVERY > 0] = False
    wanted = DROP_WINDOWS * -(-judged_NT.shape[1] // SCORED_EVERY)
    count = int((judged_NT.sum(dim=1).cumsum(dim=0) < wanted).sum()) + 1
    judged_NT = judged_NT[:count].to(device)
    windows = windows[:count]
    stream = ResidualStream(model, windows, device=device)
    layers = model.model.all_layers()

    def run(fork: ResidualStream, start: int) -> Tensor:
        for layer in layers[start:]:
            fork.advance(layer)
        return predictions_at(judged_NT, windows, model, fork)

    reference_RV = run(stream.fork(), 0)
    found = []
    needed = model.config.spec.needed
    for index, layer in enumerate(layers):
        left_out = index not in needed
        found.append(divergence(reference_RV, run(stream.fork(), index + 1)) if left_out else math.inf)
        stream.advance(layer)
    return found


def predictions_at(
    judged_NT: Tensor, windows: PackedWindows, model: RootsWithHead, stream: ResidualStream
) -> Tensor:
    """Return the logits `RV` at some positions of windows whose stream has passed the last layer."""
    stream.finish()
    sizes = [len(hidden_BTW) for hidden_BTW in stream.hidden]
    places, segments = (
        each_NT.to(stream.device).split(sizes)
        for each_NT in (judged_NT, torch.from_numpy(windows.segment_ids))
    )
    rows = [
        model.states_at(model.model.normed(hidden_BTW.to(stream.device)), judged_BT, segments_BT)
        for hidden_BTW, judged_BT, segments_BT in zip(stream.hidden, places, segments, strict=True)
    ]
    found_RV: Tensor = model.project(torch.cat(rows))
    return found_RV


def _factor(fisher_WW: Tensor) -> Tensor:
    """Return `L` with `L @ L.T` the Fisher information plus a small ridge; zero if it is zero."""
    mean = fisher_WW.diagonal().mean()
    if mean == 0:
        return fisher_WW
    damped_WW = fisher_WW.clone()
    damped_WW.diagonal().add_(FISHER_RIDGE * mean)
    factor_WW: Tensor = torch.linalg.cholesky(damped_WW)
    return factor_WW
