"""Cutting a model layer by layer, each layer judged and refitted on what the layers before it now give.

Shape legend: B windows in a batch, T tokens, R rows (flattened tokens), W hidden size, C input channels of a
projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from roots_compress.data.windows import PackedWindows
from roots_compress.model.calibration import InputStatistics, ResidualStream, collect_statistics, observed
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.model.surgery import (
    attention_group,
    head_columns,
    keep_kv_groups,
    keep_mlp_channels,
    mlp_group,
)
from roots_compress.prune.importance import ActivationImportance, MagnitudeImportance
from roots_compress.prune.plan import best_units
from roots_compress.prune.refit import refit, relative_error
from roots_compress.prune.scores import block_influence, energy_shares, pool

DAMPING = 1e-2
"""Ridge of the refit, relative to the kept channels' mean square; measured in `docs/pruning.md`."""

Score = Literal["activation", "magnitude"]


@dataclass(frozen=True)
class LayerTarget:
    """What a layer is to keep."""

    kv_groups: int
    mlp_channels: int


@dataclass(frozen=True)
class LayerErrors:
    """Root mean square error of what a layer's halves give, relative to before the cut; None where uncut."""

    attention: float | None
    mlp: float | None


class LayerwiseCutter:
    """Walks through a model once, cutting each layer to its target.

    The residual stream of the calibration windows goes along, through the layers as they now are: a layer is
    scored and refitted on the inputs that the cut layers before it really give it.

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
        self.stream = ResidualStream(model, windows, device=device)

    @torch.no_grad()
    def cut(self, targets: Sequence[LayerTarget]) -> Iterator[LayerErrors]:
        """Cut the layers one after another, yielding the errors of each when it is done."""
        for index, (layer, target) in enumerate(zip(self.model.model.layers, targets, strict=True)):
            attention = self._cut_attention(index, target.kv_groups)
            self.stream.add(self.stream.attention(layer, index))
            mlp = self._cut_mlp(index, target.mlp_channels)
            self.stream.add(self.stream.mlp(layer))
            yield LayerErrors(attention, mlp)

    def _cut_attention(self, index: int, kept_groups: int) -> float | None:
        layer = self.model.model.layers[index]
        projection, groups = layer.self_attn.o_proj, layer.self_attn.num_kv_heads
        if kept_groups == groups:
            return None
        statistics = self._observe(projection, f"layer {index}'s o_proj", self.stream.attention(layer, index))
        importance = make_importance(self.score, groups, statistics.squared_norms)
        kept = best_units(pool(importance(attention_group(self.model, index)), groups), kept_groups)
        columns = head_columns(kept, projection.in_features // groups)
        before_WC = projection.weight.clone()
        keep_kv_groups(self.model, index, kept)
        return self._settle(projection, before_WC, columns, statistics)

    def _cut_mlp(self, index: int, kept_channels: int) -> float | None:
        layer = self.model.model.layers[index]
        projection, channels = layer.mlp.down_proj, layer.mlp.down_proj.in_features
        if kept_channels == channels:
            return None
        statistics = self._observe(projection, f"layer {index}'s down_proj", self.stream.mlp(layer))
        importance = make_importance(self.score, channels, statistics.squared_norms)
        kept = best_units(importance(mlp_group(self.model, index)), kept_channels)
        before_WC = projection.weight.clone()
        keep_mlp_channels(self.model, index, kept)
        return self._settle(projection, before_WC, kept, statistics)

    def _observe(self, projection: nn.Linear, name: str, contributions: Iterator[Tensor]) -> InputStatistics:
        """Run half a layer over the windows and return the statistics of what its projection reads."""
        statistics = InputStatistics(projection.in_features, gram=True, device=projection.weight.device)
        with observed({name: projection}, lambda _name, rows_RC: statistics.update(rows_RC)):
            for _ in contributions:
                pass
        statistics.check(name)
        return statistics

    def _settle(
        self, projection: nn.Linear, before_WC: Tensor, kept: Sequence[int], statistics: InputStatistics
    ) -> float:
        """Refit a projection whose inputs were cut, if that is asked for, and return its relative error."""
        assert statistics.gram is not None
        if self.refitted:
            projection.weight.copy_(refit(before_WC, statistics.gram, kept, damping=DAMPING))
        return relative_error(before_WC, projection.weight, statistics.gram, kept)


def make_importance(score: Score, units: int, squared_norms_C: Tensor) -> tp.importance.Importance:
    """Return the score as torch-pruning takes it."""
    if score == "magnitude":
        return MagnitudeImportance(units)
    return ActivationImportance(squared_norms_C)


@torch.no_grad()
def layer_influences(model: RootsForCausalLM, windows: PackedWindows, *, device: str) -> list[float]:
    """Return each layer's block influence: how far it turns the residual stream, averaged over tokens."""
    stream = ResidualStream(model, windows, device=device)
    influences = []
    for index, layer in enumerate(model.model.layers):
        before = [hidden_BTW.flatten(0, 1).clone() for hidden_BTW in stream.hidden]
        stream.add(stream.attention(layer, index))
        stream.add(stream.mlp(layer))
        after = [hidden_BTW.flatten(0, 1) for hidden_BTW in stream.hidden]
        turned = [block_influence(*pair) for pair in zip(before, after, strict=True)]
        influences.append(float(torch.cat(turned).mean()))
    return influences


@torch.no_grad()
def unit_shares(
    model: RootsForCausalLM, windows: PackedWindows, *, score: Score, device: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the energy share of every key/value group and of every MLP channel of every layer.

    They are measured on the model as it is, to compare layers before any is cut.
    """
    names = [
        f"model.layers.{index}.{projection}"
        for index in range(len(model.model.layers))
        for projection in ("self_attn.o_proj", "mlp.down_proj")
    ]
    statistics = collect_statistics(model, windows, names, device=device)
    groups, channels = [], []
    for index, layer in enumerate(model.model.layers):
        heads, width = layer.self_attn.num_kv_heads, layer.mlp.down_proj.in_features
        importance = make_importance(score, heads, statistics[names[2 * index]].squared_norms)
        groups.append(energy_shares(pool(importance(attention_group(model, index)), heads)))
        importance = make_importance(score, width, statistics[names[2 * index + 1]].squared_norms)
        channels.append(energy_shares(importance(mlp_group(model, index))))
    return groups, channels
