"""Cutting a model layer by layer, each layer judged and refitted on what the layers before it now give.

Shape legend: B windows in a batch, T tokens, R rows (flattened tokens), N windows, W hidden size, C input
channels of a projection, K those of them that are still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
import torch_pruning as tp
from torch import Tensor, nn

from roots_compress.calibration.activations import ResidualStream
from roots_compress.calibration.gradients import observe_gradients
from roots_compress.data.windows import PackedWindows
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.resizing import (
    attention_group,
    head_columns,
    keep_kv_groups,
    keep_mlp_channels,
    keep_query_heads,
    mlp_group,
    query_group,
)
from roots_compress.stages.prune.held_inputs import HeldInputs, held_bytes, input_gram
from roots_compress.stages.prune.importance import (
    ActivationImportance,
    MagnitudeImportance,
    SurgeonImportance,
    TaylorImportance,
)
from roots_compress.stages.prune.plan import LayerTarget, best_of_each, best_units
from roots_compress.stages.prune.refit import refit, relative_error
from roots_compress.stages.prune.scores import pool

DAMPING = 1e-2
"""Ridge of the refit, relative to the kept channels' mean square."""
LEAVE_AT_ONCE = 1 / 128
"""Fraction of an MLP's channels that the surgeon takes out before it judges the others again."""

Score = Literal["activation", "magnitude", "taylor", "obs"]


@dataclass(frozen=True)
class LayerErrors:
    """Root mean square error of what a layer's halves give, relative to before the cut; None where uncut."""

    attention: float | None
    mlp: float | None


@dataclass(frozen=True)
class Evidence:
    """What calibration says about a projection's input channels."""

    gram_CC: Tensor
    contributions_NC: Tensor | None
    """For `taylor`: each window's input times gradient."""

    def of(self, columns: Sequence[int]) -> Evidence:
        """Return what is said about these channels alone."""
        index = torch.as_tensor(columns, device=self.gram_CC.device)
        contributions = self.contributions_NC
        return Evidence(
            self.gram_CC[index][:, index], None if contributions is None else contributions[:, index]
        )


class LayerwiseCutter:
    """Walks through a model once, cutting each layer to its target.

    The residual stream of the calibration windows goes along, through the layers as they now are: a layer is
    scored and refitted on the inputs that the cut layers before it really give it. Those inputs are held, as
    far as there is room, and run through the cut projection. Only gradients, which
    `taylor` asks for, are those of the uncut model.

    Args:
        model: cut in place; on the device.
        windows: calibration text.
        score: what decides which channels stay.
        refitted: whether to refit the projection after each cut.
        device: where to compute.
    """

    def __init__(
        self, model: RootsForCausalLM, windows: PackedWindows, *, score: Score, refitted: bool, device: str
    ) -> None:
        self.model, self.score, self.refitted = model, score, refitted
        self.contributions: dict[str, Tensor] = {}
        if score == "taylor":
            self.contributions = first_order_contributions(model, windows, device=device)
        self.stream = ResidualStream(model, windows, device=device)

    @torch.no_grad()
    def cut(self, targets: Sequence[LayerTarget]) -> Iterator[LayerErrors]:
        """Cut the layers one after another, yielding the errors of each when it is done."""
        for index, target in enumerate(targets):
            yield LayerErrors(self._cut_attention(index, target), self._cut_mlp(index, target.mlp_channels))

    def _cut_attention(self, index: int, target: LayerTarget) -> float | None:
        """Cut a layer's attention, and move the stream past it."""
        layer = self.model.model.layers[index]
        attention, projection = layer.self_attn, layer.self_attn.o_proj
        groups, queries = attention.num_kv_heads, attention.num_heads // attention.num_kv_heads
        if (target.kv_groups, target.queries) == (groups, queries):
            self.stream.add(self.stream.attention(layer, index))
            return None
        held = HeldInputs(held_bytes(self.model, self.stream.device))
        inputs = held.passing(self.stream.attention_inputs(layer, index))
        evidence = self._observe(index, "self_attn.o_proj", inputs)
        before_WC, columns = projection.weight.clone(), list(range(projection.in_features))
        if target.kv_groups < groups:
            importance = make_importance(self.score, evidence, groups, kept=target.kv_groups)
            kept = best_units(pool(importance(attention_group(self.model, index)), groups), target.kv_groups)
            keep_kv_groups(self.model, index, kept)
            columns = head_columns(kept, queries * attention.head_dim)
            self._refit(projection, before_WC, columns, evidence)
        if target.queries < queries:
            heads = target.kv_groups * queries
            importance = make_importance(
                self.score,
                evidence.of(columns),
                heads,
                kept=target.kv_groups * target.queries,
                groups=target.kv_groups,
            )
            scores_H = pool(importance(query_group(self.model, index)), heads)
            kept = best_of_each(scores_H, target.kv_groups, target.queries)
            keep_query_heads(self.model, index, kept)
            columns = [columns[place] for place in head_columns(kept, attention.head_dim)]
            self._refit(projection, before_WC, columns, evidence)
        self.stream.add(
            held.contributions(
                projection, columns, lambda first: self.stream.attention(layer, index, first=first)
            )
        )
        return relative_error(before_WC, projection.weight, evidence.gram_CC, columns)

    def _cut_mlp(self, index: int, kept_channels: int) -> float | None:
        """Cut a layer's MLP, and move the stream past it."""
        layer = self.model.model.layers[index]
        projection, channels = layer.mlp.down_proj, layer.mlp.down_proj.in_features
        if kept_channels == channels:
            self.stream.add(self.stream.mlp(layer))
            return None
        held = HeldInputs(held_bytes(self.model, self.stream.device))
        evidence = self._observe(index, "mlp.down_proj", held.passing(self.stream.mlp_inputs(layer)))
        importance = make_importance(self.score, evidence, channels, kept=kept_channels)
        kept = best_units(importance(mlp_group(self.model, index)), kept_channels)
        before_WC = projection.weight.clone()
        keep_mlp_channels(self.model, index, kept)
        self._refit(projection, before_WC, kept, evidence)
        self.stream.add(
            held.contributions(projection, kept, lambda first: self.stream.mlp(layer, first=first))
        )
        return relative_error(before_WC, projection.weight, evidence.gram_CC, kept)

    def _observe(self, index: int, name: str, inputs: Iterator[Tensor]) -> Evidence:
        """Run half a layer over the windows, up to its projection, and return what that reads."""
        projection = self.model.model.layers[index].get_submodule(name)
        assert isinstance(projection, nn.Linear)
        gram_CC = input_gram(f"layer {index}'s {name}", projection, inputs)
        return Evidence(gram_CC, self.contributions.get(f"model.layers.{index}.{name}"))

    def _refit(
        self, projection: nn.Linear, before_WC: Tensor, columns: Sequence[int], evidence: Evidence
    ) -> None:
        """Solve for a cut projection again, from what it was before any cut, if that is asked for."""
        if self.refitted:
            projection.weight.copy_(refit(before_WC, evidence.gram_CC, columns, damping=DAMPING))


def make_importance(
    score: Score, evidence: Evidence, units: int, *, kept: int, groups: int = 1
) -> tp.importance.Importance:
    """Return the score as torch-pruning takes it, for a projection whose channels form so many units.

    Equally many of the units stay in each of `groups` equal groups, `kept` in all.
    """
    match score:
        case "magnitude":
            return MagnitudeImportance(units)
        case "activation":
            return ActivationImportance(evidence.gram_CC.diagonal())
        case "taylor":
            assert evidence.contributions_NC is not None
            return TaylorImportance(evidence.contributions_NC, units)
        case "obs":
            at_once = max(1, int(LEAVE_AT_ONCE * units))
            return SurgeonImportance(
                evidence.gram_CC, units, kept=kept, at_once=at_once, damping=DAMPING, groups=groups
            )
        case _:
            assert_never(score)


def first_order_contributions(
    model: RootsForCausalLM, windows: PackedWindows, *, device: str
) -> dict[str, Tensor]:
    """Return `NC` for every `o_proj` and `down_proj`: each input channel times the loss's gradient by it.

    Summed over a window's tokens; float32, on the device.
    """
    found: dict[str, list[Tensor]] = {}
    modules = dict(model.named_modules())

    def observer(name: str, inputs_TC: Tensor, gradient_TW: Tensor) -> None:
        weight_WC = modules[name].weight
        found.setdefault(name, []).append((inputs_TC * (gradient_TW @ weight_WC)).sum(dim=0).float())

    observe_gradients(model, windows, cut_projections(model), observer, device=device)
    return {name: torch.stack(rows) for name, rows in found.items()}


def cut_projections(model: RootsForCausalLM) -> list[str]:
    """Return the names of the projections whose inputs may be cut, in the order they run."""
    return [
        f"model.layers.{index}.{name}"
        for index in range(len(model.model.layers))
        for name in ("self_attn.o_proj", "mlp.down_proj")
    ]
