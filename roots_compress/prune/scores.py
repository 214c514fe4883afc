"""How much each channel, head or layer matters: pure functions of weights and activations.

Shape legend: O outputs and C input channels of a projection (`weight_OC`), U units (MLP channels, or
key/value groups of several channels each), R rows (tokens), W hidden size.

Only the order of scores within one call means anything; all of them are at least 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def magnitude(squared_parts: Sequence[Tensor]) -> Tensor:
    """Return the norm of all weights that leave with each channel.

    The group norm of Torch-Pruning (Fang et al. 2023, arXiv:2301.12900) and of LLM-Pruner's weight score
    (Ma et al. 2023, arXiv:2305.11627). It knows nothing of the activations.

    Args:
        squared_parts: `C` each: the sum of squares of each channel's weights in one matrix of its group.
    """
    return torch.stack([part.double() for part in squared_parts]).sum(dim=0).sqrt()


def activation(weight_OC: Tensor, squared_norms_C: Tensor) -> Tensor:
    """Return, for each channel, the norm of its column times the norm of its input on calibration text.

    This is the norm of what the channel contributes to the output: Wanda's score (Sun et al. 2023,
    arXiv:2306.11695) summed over the outputs in quadrature, the structured form that FLAP builds on (An et
    al. 2023, arXiv:2312.11983).

    Args:
        weight_OC: the projection that reads the channels.
        squared_norms_C: sum of squares of each channel over the calibration rows.
    """
    return (weight_OC.double().square().sum(dim=0) * squared_norms_C.double()).sqrt()


def pool(scores_C: Tensor, units: int) -> Tensor:
    """Return one score for each unit of equally many neighbouring channels, `U`: theirs in quadrature."""
    return scores_C.view(units, -1).square().sum(dim=1).sqrt()


def energy_shares(scores_U: Tensor) -> Tensor:
    """Return each unit's share of its layer's squared scores, which compares units of different layers.

    A share estimates the relative squared error that the layer's output suffers when the unit leaves. A dead
    layer, all of whose scores are 0, gives zeros: nothing is lost there.
    """
    energy_U = scores_U.double().square()
    total = energy_U.sum()
    return energy_U / total if total > 0 else energy_U


def block_influence(before_RW: Tensor, after_RW: Tensor) -> Tensor:
    """Return, for each token, how far a layer turns the residual stream: 1 - cosine similarity, `R`.

    Averaged over tokens this is ShortGPT's block influence (Men et al. 2024, arXiv:2403.03853): a layer whose
    output is nearly parallel to its input can leave.
    """
    return 1.0 - torch.nn.functional.cosine_similarity(before_RW.double(), after_RW.double(), dim=-1)
