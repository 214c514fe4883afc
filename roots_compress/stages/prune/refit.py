"""Least-squares refit of a projection whose input channels were cut: pure functions of Gram matrices.

Shape legend: O outputs, C all input channels, K kept input channels. `gram_CC` is `X.T @ X` of the
projection's full input X on calibration rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from roots_compress.errors import StageError

ROWS_PER_CHANNEL = 2
"""Calibration rows per refitted channel; with fewer, least squares would fit noise."""
SMALLEST_RIDGE = 1e-60


def rows_needed(kept: int) -> int:
    """Return the number of calibration rows that a refit of `kept` input channels needs."""
    return ROWS_PER_CHANNEL * kept


def refit(
    weight_OC: Tensor,
    gram_CC: Tensor,
    kept: Sequence[int],
    *,
    damping: float,
) -> Tensor:
    """Return the weights `OK` with which the kept channels best approximate the outputs before the cut.

    They minimise `|X weight.T - X_K W.T|^2 + d |W - W_K|^2`, where `W_K` are the original kept columns
    and `d` is `damping` times the mean of the kept channels' Gram diagonal. It is the layer-wise
    reconstruction of optimal brain surgeon and SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774), for
    whole channels.

    The system is solved for the correction, not for the weights: where there is no data (a channel of zeros
        on the calibration rows) a weight does not change instead of shrinking to zero.

    Args:
        gram_CC: of the projection's full input.
        kept: the input channels that stay, in rising order.
        damping: ridge, relative to the mean Gram diagonal of the kept channels; above 0.

    Raises:
        StageError: the system cannot be solved: an input is not finite.
    """
    index = torch.as_tensor(kept, device=gram_CC.device)
    gone = torch.ones(len(gram_CC), dtype=torch.bool, device=gram_CC.device)
    gone[index] = False
    weight_OC, gram_CC = weight_OC.double(), gram_CC.double()
    gram_KK = gram_CC[index[:, None], index]
    kept_OK = weight_OC[:, index]
    mean_square = gram_KK.diagonal().mean()
    if mean_square == 0:
        return kept_OK
    factor_KK = _damped_factor(gram_KK, damping * mean_square)
    # The output of the removed channels, which the others have to replace.
    residual_OK = weight_OC[:, gone] @ gram_CC[gone][:, index]
    return kept_OK + torch.cholesky_solve(residual_OK.T, factor_KK).T


def damped_inverse(gram_CC: Tensor, *, damping: float) -> Tensor:
    """Return the inverse of a Gram matrix with the refit's ridge on its diagonal, `CC`, float64.

    Raises:
        StageError: the Gram matrix is not finite.
    """
    gram_CC = gram_CC.double()
    ridge = damping * gram_CC.diagonal().mean()
    # For a dead input any ridge works; a smaller one gives a lower removal cost.
    return torch.cholesky_inverse(_damped_factor(gram_CC, ridge if ridge != 0 else ridge + SMALLEST_RIDGE))


def _damped_factor(gram_KK: Tensor, ridge: Tensor) -> Tensor:
    damped_KK = gram_KK.clone()
    damped_KK.diagonal().add_(ridge)
    factor_KK: Tensor
    factor_KK, failed = torch.linalg.cholesky_ex(damped_KK)
    if failed or not torch.isfinite(factor_KK).all():
        raise StageError(
            "the least-squares refit has no solution: the calibration activations are not finite",
            remedy="Check the checkpoint's weights; its activations may overflow.",
        )
    return factor_KK


def relative_error(weight_OC: Tensor, refitted_OK: Tensor, gram_CC: Tensor, kept: Sequence[int]) -> float:
    """Return the root mean square of the output's change, relative to the output, on the Gram matrix's rows.

    0 is a perfect refit, and 1 the error of an output of zeros. A dead projection has error 0.
    """
    weight_OC, gram_CC = weight_OC.float(), gram_CC.float()
    change_OC = weight_OC.clone()
    change_OC[:, torch.as_tensor(kept, device=weight_OC.device)] -= refitted_OK.float()
    energy = ((weight_OC @ gram_CC) * weight_OC).sum(dtype=torch.float64)
    lost = ((change_OC @ gram_CC) * change_OC).sum(dtype=torch.float64)
    return float((lost.clamp(min=0) / energy).sqrt()) if energy > 0 else 0.0


def refit_scales(table_gram_WW: Tensor, gram_ZZ: Tensor, kept: Sequence[int], *, damping: float) -> Tensor:
    """Return the factors `K` on the inputs of a fixed projection that best replace those it lost.

    With `E` the projection, `E_K` its kept columns, `v` the kept inputs and `d` the difference of all inputs
    from these (`W`, each in its place), they minimise `|E d - E_K ((s - 1) * v)|^2` summed over the rows,
    with a ridge towards 1. This refits a tied head, whose weights must not change.

    Args:
        table_gram_WW: `E.T @ E`.
        gram_ZZ: Gram matrix of the rows `[d, v]`.
        kept: the inputs that stay, in rising order.
        damping: ridge, relative to the mean diagonal of the system; above 0.

    Raises:
        StageError: the system cannot be solved: an input is not finite.
    """
    index = torch.as_tensor(kept, device=gram_ZZ.device)
    table_gram_KW, gram_ZZ = table_gram_WW.double()[index], gram_ZZ.double()
    width = table_gram_KW.shape[1]
    system_KK = table_gram_KW[:, index] * gram_ZZ[width:, width:]
    mean_square = system_KK.diagonal().mean()
    if mean_square == 0:
        return torch.ones_like(system_KK[0])
    lacking_K = (table_gram_KW * gram_ZZ[width:, :width]).sum(dim=1, keepdim=True)
    factor_KK = _damped_factor(system_KK, damping * mean_square)
    return 1 + torch.cholesky_solve(lacking_K, factor_KK)[:, 0]
