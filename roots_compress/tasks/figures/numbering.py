"""Labels that data number otherwise than the model that is judged by them.

Shape legend: N texts or words, L labels.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from roots_compress.errors import SourceWarning

LEAST_SEEN, LEAST_SHARE = 20, 0.7
"""How often a label must be right, and the share of these that must be given one other, to be taken for it.
By chance two labels are taken for one another in less than one of a hundred sets."""


def warn_of_numbering(given_N: NDArray[np.int64], right_N: NDArray[np.int64]) -> None:
    """Warn where labels are taken for one another, which a model does only if data number them otherwise."""
    if exchanged := exchanged_labels(given_N, right_N):
        told = ", ".join(f"{right} is mostly given {given}" for right, given in exchanged)
        warnings.warn(
            SourceWarning(
                f"the data seem to number their labels otherwise than the model does: label {told}. Give "
                "labels by the names that the model's id2label has."
            ),
            stacklevel=2,
        )


def exchanged_labels(given_N: NDArray[np.int64], right_N: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return labels that are right, each with the one that is given in its place, if they form rings."""
    count = int(max(given_N.max(), right_N.max())) + 1
    times_LL = np.bincount(right_N * count + given_N, minlength=count * count).reshape(count, count)
    seen_L = times_LL.sum(axis=1)
    clear_L = (seen_L >= LEAST_SEEN) & (times_LL.max(axis=1) >= LEAST_SHARE * seen_L)
    given_L = np.where(clear_L, times_LL.argmax(axis=1), -1)
    return [(label, int(given_L[label])) for label in range(count) if _in_ring(label, given_L)]


def _in_ring(label: int, given_L: NDArray[np.int64]) -> bool:
    """Whether what is given for a label, for that, and so on leads back to it, by way of another."""
    place, steps = int(given_L[label]), 1
    while place not in (-1, label) and steps < len(given_L):
        place, steps = int(given_L[place]), steps + 1
    return place == label and steps > 1
