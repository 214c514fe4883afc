"""A mixture of experts: each token goes through the best few of many feed-forward blocks.

Shape legend: B batch, T tokens, W hidden size, R = B * T rows, E experts, K experts chosen for a token, N
rows of one expert, G groups of X experts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Context, Holder, Route
from roots_compress.models.blocks.mlp import ACTIVATION_FUNCTIONS
from roots_compress.models.ops.mlp import Activation
from roots_compress.models.ops.moe import EXPERT_LAYERS, Clamp, Groups, Moe

LEAST_SUM = 1e-6
"""Added to the sum by which sigmoids are divided."""


class Expert(Holder):
    """A gated feed-forward block of its own."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def __init__(self, activation: Activation, clamp: Clamp | None) -> None:
        super().__init__()
        self._activation, self._clamp = activation, clamp

    def forward(self, x_NW: Tensor) -> Tensor:
        """Return its output, `NW`."""
        out_NW: Tensor = self.down_proj(self.inner(x_NW))
        return out_NW

    def inner(self, x_NW: Tensor) -> Tensor:
        """Return its last projection's input, `NC` for C channels."""
        gate_NC, up_NC = self.gate_proj(x_NW), self.up_proj(x_NW)
        if self._clamp is not None:
            limit = self._clamp.limit
            gate_NC, up_NC = gate_NC.clamp(max=limit), up_NC.clamp(-limit, limit) + 1
            gated_NC: Tensor = gate_NC * torch.sigmoid(self._clamp.alpha * gate_NC) * up_NC
            return gated_NC
        inner_NC: Tensor = ACTIVATION_FUNCTIONS[self._activation](gate_NC) * up_NC
        return inner_NC

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Return its output: a channel is a column of down and a row of up and of gate."""
        return self.forward(x_BTW)


def in_best_groups(ranked_RE: Tensor, groups: Groups) -> Tensor:
    """Return the experts' selection scores, minus infinity outside each row's best groups."""
    ranked_RGX = ranked_RE.unflatten(-1, (groups.count, -1))
    ranked_RG = ranked_RGX.topk(groups.best, dim=-1).values.sum(dim=-1)
    outside_RG = torch.ones_like(ranked_RG, dtype=torch.bool)
    outside_RG.scatter_(-1, ranked_RG.topk(groups.chosen, dim=-1).indices, False)
    inside_RE: Tensor = ranked_RGX.masked_fill(outside_RG[..., None], -torch.inf).flatten(-2)
    return inside_RE


class MoeBlock(Block):
    """A router, and gated experts of equal widths (Shazeer et al. 2017, arXiv:1701.06538)."""

    spec: Moe
    selection_bias: Tensor

    def add_holders(self, config: Any) -> None:
        """Add the router, and a module for each expert."""
        spec = self.spec
        self.router = nn.Linear(config.hidden_size, spec.experts, bias=spec.bias)
        if spec.selection_bias:
            self.register_buffer("selection_bias", torch.zeros(spec.experts))  # It is trained by no gradient.
        self.experts = nn.ModuleList(Expert(spec.activation, spec.clamp) for _ in range(spec.experts))

    def contribution(self, x_BTW: Tensor, context: Context) -> Tensor:
        """Return the weighted sum of the chosen experts' outputs, `BTW`."""
        return self.given_by(x_BTW, "experts", range(self.spec.experts))

    def given_by(self, x_BTW: Tensor, axis: str, kept: Sequence[int]) -> Tensor:
        """Return the weighted sum of the outputs of the best of these experts."""
        assert axis == "experts", axis
        x_RW = x_BTW.flatten(0, -2)
        out_RW = torch.zeros_like(x_RW)
        for number, (row_N, weight_N) in enumerate(self._routes(x_RW, kept)):
            given_NW = self.expert(number, x_RW[row_N]) * weight_N[:, None]
            out_RW.index_add_(0, row_N, given_NW.to(out_RW.dtype))
        return out_RW.view(x_BTW.shape)

    def routes(self, x_BTW: Tensor) -> Mapping[str, Route]:
        """Return the rows of each expert's linear layers."""
        routes = zip(self.spec.names(), self._routes(x_BTW.flatten(0, -2)), strict=True)
        return {f"{expert}.{name}": route for expert, route in routes for name in EXPERT_LAYERS}

    def run_on_all(self, names: Collection[str], x_BTW: Tensor) -> None:
        """Run the experts of these linear layers on all rows."""
        for number, expert in enumerate(self.spec.names()):
            if any(f"{expert}.{name}" in names for name in EXPERT_LAYERS):
                self.expert(number, x_BTW.flatten(0, -2))

    def _routes(self, x_RW: Tensor, kept: Sequence[int] | None = None) -> Iterator[Route]:
        """Yield the rows of each expert; with `kept`, as if only these experts existed."""
        weights_RK, chosen_RK = self.routed(x_RW, kept)
        for number in range(self.spec.experts):
            row_N, rank_N = (chosen_RK == number).nonzero(as_tuple=True)
            yield Route(row_N, weights_RK[row_N, rank_N])

    def routed(self, x_RW: Tensor, kept: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Return the weight and the number of each row's experts, `RK` both, the best first."""
        spec, logits_RE = self.spec, self.router(x_RW).float()
        gone_E = torch.zeros(spec.experts, dtype=torch.bool, device=x_RW.device)
        if kept is not None and len(kept) < spec.experts:
            gone_E[:] = True
            gone_E[list(kept)] = False
            logits_RE = logits_RE.masked_fill(gone_E, -torch.inf)
        chances_RE = logits_RE.sigmoid() if spec.scores == "sigmoid" else F.softmax(logits_RE, dim=-1)
        ranked_RE = chances_RE
        if spec.selection_bias:
            ranked_RE = (chances_RE + self.selection_bias).masked_fill(gone_E, -torch.inf)
        if spec.groups is not None:
            ranked_RE = in_best_groups(ranked_RE, spec.groups)
        chosen_RK = ranked_RE.topk(spec.chosen, dim=-1).indices
        weights_RK = chances_RE.gather(-1, chosen_RK)
        if spec.renormalise:
            sum_R1 = weights_RK.sum(dim=-1, keepdim=True)
            if spec.least_sum is not None:
                sum_R1 = sum_R1.clamp(min=spec.least_sum)
            elif spec.scores == "sigmoid":
                sum_R1 = sum_R1 + LEAST_SUM
            weights_RK = weights_RK / sum_R1
        return (weights_RK * spec.scale).to(x_RW.dtype), chosen_RK

    def expert(self, number: int, x_NW: Tensor) -> Tensor:
        """Return one expert's output, `NW`."""
        out_NW: Tensor = self.experts[number](x_NW)
        return out_NW

    def holder(self, projection: str) -> Holder:
        """Return the expert of a linear layer."""
        expert = self.get_submodule(projection.rpartition(".")[0])
        assert isinstance(expert, Expert)
        return expert

    def read_by_parts(self, x_BTW: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the input of each expert's last projection, times the expert's weight, by its name."""
        x_RW = x_BTW.flatten(0, -2)
        for name, expert, route in zip(self.spec.names(), self.experts, self._routes(x_RW), strict=True):
            assert isinstance(expert, Expert)
            yield f"{name}.down_proj", expert.inner(x_RW[route.row_N]) * route.weight_N[:, None]

    def coupled(self, x_BTW: Tensor, axis: str, source_BTW: Tensor | None = None) -> Tensor:
        """Return the sum of all experts' outputs, unrouted: a trace would confuse the router's channels."""
        return torch.stack([self.expert(number, x_BTW) for number in range(self.spec.experts)]).sum(dim=0)

    def shares(self, x_BTW: Tensor, axis: str) -> tuple[Tensor, Tensor]:
        """Return the experts' shares.

        Their quotient is the score of REAP (Lasby et al. 2025, arXiv:2510.13999).
        """
        x_RW = x_BTW.flatten(0, -2)
        given_E, tokens_E = x_RW.new_zeros(2, self.spec.experts)
        for number, (row_N, weight_N) in enumerate(self._routes(x_RW)):
            given_E[number] = (self.expert(number, x_RW[row_N]).norm(dim=-1) * weight_N).sum()
            tokens_E[number] = len(row_N)
        return given_E, tokens_E

    def drop(self, axis: str, kept: Sequence[int]) -> None:
        """Keep only these experts, and their rows of the router."""
        assert axis == "experts", axis
        self.experts = nn.ModuleList(self.experts[number] for number in kept)
        for name, parameter in list(self.router.named_parameters()):
            setattr(self.router, name, nn.Parameter(parameter.detach()[list(kept)]))
        self.router.out_features = len(kept)
        if self.spec.selection_bias:
            self.selection_bias = self.selection_bias[list(kept)]
