"""What to keep: from ratios and scores to legal widths and indices. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from roots_compress.errors import InputError


def kept_width(width: int, ratio: float, multiple_of: int, *, key: str) -> int:
    """Return the multiple of `multiple_of` nearest to `width * (1 - ratio)`.

    Args:
        width: what there is.
        ratio: fraction to remove, between 0 and 1.
        multiple_of: the widths that runtimes like.
        key: the recipe key of the ratio, for the error.

    Raises:
        InputError: the nearest such width removes nothing or everything; the nearest other ratio is named.
    """
    if ratio == 0:
        return width
    least, most = multiple_of, (width - 1) // multiple_of * multiple_of
    if most < least:
        raise InputError(
            f"{key} {ratio} leaves no legal width: no multiple of {multiple_of} is below {width}",
            remedy="Lower multiple_of, or leave this width alone with a ratio of 0.",
        )
    kept = multiple_of * int(width * (1 - ratio) / multiple_of + 0.5)
    if not least <= kept <= most:
        nearest = most if kept > most else least
        unit = f" in multiples of {multiple_of}" if multiple_of > 1 else ""
        raise InputError(
            f"{key} {ratio} leaves no legal width: of {width}, between {least} and {most} can stay{unit}",
            remedy=f"The nearest legal {key} is {1 - nearest / width:.4f}, which keeps {nearest}.",
        )
    return kept


def best_units(scores_U: Tensor, count: int) -> list[int]:
    """Return the `count` units of highest score, in rising order. Of equal ones the first stays."""
    order = scores_U.cpu().argsort(descending=True, stable=True)
    return sorted(order[:count].tolist())


def global_widths(shares: Sequence[Tensor], total: int, multiple_of: int) -> list[int]:
    """Return how many units each layer keeps when units of all layers are ranked together.

    Each layer keeps the multiple of `multiple_of` below its number of units among the `total` best; what then
    is missing to the total goes, a multiple at a time, to the layers whose next units are worth most. A layer
    keeps at least one multiple, and at most what it has.

    Args:
        shares: scores of each layer's units, comparable between layers (`scores.energy_shares`).
        total: units to keep in all, a multiple of `multiple_of`.
        multiple_of: widths are multiples of this.
    """
    worth = [_worth_of_steps(share_U, multiple_of) for share_U in shares]
    widths = [multiple_of] * len(shares)
    steps = sorted(
        ((value, -layer, -step) for layer, values in enumerate(worth) for step, value in enumerate(values)),
        reverse=True,
    )
    for _, layer, _ in steps[: (total - sum(widths)) // multiple_of]:
        widths[-layer] += multiple_of
    return widths


def _worth_of_steps(shares_U: Tensor, multiple_of: int) -> list[float]:
    """Return what each further multiple of units is worth, best first; the first one always stays."""
    ranked = shares_U.double().cpu().sort(descending=True).values
    whole = len(ranked) // multiple_of * multiple_of
    return ranked[:whole].view(-1, multiple_of).sum(dim=1).tolist()[1:]
