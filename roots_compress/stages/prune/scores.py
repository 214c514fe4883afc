"""Importance scores of channels, heads and layers: pure functions of weights and activations.

Shape legend: O outputs and C input channels of a projection (`weight_OC`), U units (MLP channels, or
heads or key/value groups of several channels each), N calibration windows, R rows (tokens), V vocabulary.

Only the order of scores within one call matters; all are at least 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def magnitude(squared_parts: Sequence[Tensor]) -> Tensor:
    """Return the norm of all weights that are removed with each channel.

    The group norm of Torch-Pruning (Fang et al. 2023, arXiv:2301.12900) and of LLM-Pruner's weight score
    (Ma et al. 2023, arXiv:2305.11627). It does not use activations.

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
        squared_norms_C: sum of squares of each channel over the calibration rows.
    """
    return (weight_OC.double().square().sum(dim=0) * squared_norms_C.double()).sqrt()


def pool(scores_C: Tensor, units: int) -> Tensor:
    """Return one score for each unit of equally many neighbouring channels, `U`: theirs in quadrature."""
    if units == len(scores_C):
        return scores_C
    return scores_C.view(units, -1).square().sum(dim=1).sqrt()


def taylor(contributions_NC: Tensor, units: int) -> Tensor:
    """Return the first-order change of the loss if each unit were zero, `U`.

    Importance by a first-order Taylor expansion (Molchanov et al. 2019, arXiv:1906.10771; for language models
    LLM-Pruner, Ma et al. 2023, arXiv:2305.11627): a unit's input times its gradient, summed over the unit and
    a window, in the root mean square over windows.

    Args:
        contributions_NC: for each window, a channel's input times the loss's gradient, summed over tokens.
        units: units of equally many neighbouring channels.
    """
    contributions_NU = contributions_NC.double().view(len(contributions_NC), units, -1).sum(dim=2)
    return contributions_NU.square().mean(dim=0).sqrt()


def divergence(reference_RV: Tensor, changed_RV: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence of the predictions of two models, in nats per token."""
    reference_RV, changed_RV = reference_RV.float().log_softmax(-1), changed_RV.float().log_softmax(-1)
    found = torch.nn.functional.kl_div(changed_RV, reference_RV, reduction="batchmean", log_target=True)
    return max(0.0, float(found))
