"""Batches of packed windows in an order that a seed and a position determine.

Shape legend: B windows in a batch, T tokens in a window, N scored positions of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import InputError, recipe_key


@dataclass(frozen=True)
class Batch:
    """Windows on the training device."""

    input_ids_BT: Tensor
    labels_BT: Tensor
    segment_ids_BT: Tensor
    rows: tuple[int, ...]
    """Which of the training's windows these are, counted among those with a scored token."""
    first: int
    """How many windows training has read before these, over all epochs."""

    @property
    def scored_BT(self) -> Tensor:  # noqa: N802
        """True at the positions whose next token is scored; False throughout the last column."""
        scored_BT = torch.zeros_like(self.labels_BT, dtype=torch.bool)
        scored_BT[:, :-1] = self.labels_BT[:, 1:] != IGNORED_LABEL
        return scored_BT

    @property
    def targets_N(self) -> Tensor:  # noqa: N802
        """The token to predict at each scored position, in the order `scored_BT` selects them."""
        return self.labels_BT[:, 1:][self.scored_BT[:, :-1]]


class BatchOrder:
    """Which windows each optimizer step reads: a fresh permutation of them all in every epoch.

    The permutation of an epoch follows from the seed and the epoch's number alone, so a resumed run needs no
    random state to read on where it stopped. A batch at the end of an epoch is filled from the next.
    """

    def __init__(self, windows: PackedWindows, *, seed: int) -> None:
        kept = scored_windows(windows)
        self.tensors: dict[str, Tensor] = {
            name: torch.from_numpy(np.ascontiguousarray(array))
            for name, array in (
                ("input_ids_BT", kept.input_ids),
                ("labels_BT", kept.labels),
                ("segment_ids_BT", kept.segment_ids),
            )
        }
        self._seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.tensors["input_ids_BT"])

    def take(self, first: int, count: int, device: str) -> Batch:
        """Return the windows numbered `first` to `first + count` since the start of training."""
        return self.at([self._row(number) for number in range(first, first + count)], device, first=first)

    def at(self, rows: Sequence[int], device: str, *, first: int = 0) -> Batch:
        """Return windows by their place in the text."""
        tensors = {name: tensor[list(rows)].to(device) for name, tensor in self.tensors.items()}
        return Batch(**tensors, rows=tuple(rows), first=first)

    @property
    def scored_counts(self) -> NDArray[np.int64]:
        """How many positions of each window are scored."""
        labels_BT = self.tensors["labels_BT"].numpy()
        counts: NDArray[np.int64] = (labels_BT[:, 1:] != IGNORED_LABEL).sum(axis=1)
        return counts

    def _row(self, number: int) -> int:
        epoch, position = divmod(number, len(self))
        if epoch != self._epoch:
            self._permutation = np.random.default_rng((self._seed, epoch)).permutation(len(self))
            self._epoch = epoch
        return int(self._permutation[position])


def scored_windows(windows: PackedWindows) -> PackedWindows:
    """Return the windows without those in which no token is scored; they teach nothing.

    Raises:
        InputError: none is left.
    """
    keep = (windows.labels[:, 1:] != IGNORED_LABEL).any(axis=1)
    if not keep.any():
        raise InputError(
            "the training text has no token to learn from: every one is a prompt, padding or a first token",
            where=recipe_key("data", "train"),
            remedy="Give longer documents, or instruction data whose responses are not empty.",
        )
    return windows[keep]
