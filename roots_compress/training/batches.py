"""Batches of packed windows in an order determined by a seed and a position.

Shape legend: B windows in a batch, T tokens in a window, N scored positions of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roots_compress.data.windows import IGNORED_LABEL, PackedWindows, model_inputs
from roots_compress.errors import InputError, StageError, recipe_key

SOURCE = "source_ids", "source_segment_ids"


@dataclass(frozen=True)
class Batch:
    """Windows on the training device."""

    input_ids_BT: Tensor
    targets_BT: Tensor
    """The target at each position; -100 where nothing is scored."""
    segment_ids_BT: Tensor
    rows: tuple[int, ...]
    """The numbers of these windows among those with a scored token."""
    first: int
    """The number of windows read before these, over all epochs."""
    source: tuple[Tensor, Tensor] | None = None
    """For pairs: tokens and segments of the sources, `BS` each."""
    token_types_BT: Tensor | None = None
    """1 in the second text of an encoder's pair; None if all are 0."""
    scores_BT: Tensor | None = None
    """The right number at a text's first position, elsewhere NaN; None without numbers."""

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The model's inputs, by argument names."""
        return model_inputs(self.input_ids_BT, self.segment_ids_BT, self.source, self.token_types_BT)

    @property
    def scored_BT(self) -> Tensor:  # noqa: N802
        """True at the scored positions."""
        return self.targets_BT != IGNORED_LABEL

    @property
    def targets_N(self) -> Tensor:  # noqa: N802
        """The target at each scored position, in the order of `scored_BT`."""
        return self.targets_BT[self.scored_BT]


class BatchOrder:
    """The windows of each optimizer step: a new permutation of all windows in every epoch.

    An epoch's permutation follows from the seed and the epoch's number alone, so a resumed run needs no
    random state to continue. A batch at the end of an epoch is filled from the next.
    """

    def __init__(self, windows: PackedWindows, *, seed: int) -> None:
        self._windows = scored_windows(windows)
        self._seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._windows.input_ids)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All windows as in the first epoch, by the names of a batch."""
        source = self._windows.source or ()
        return {**_tensors(self._windows), **dict(zip(SOURCE, map(_tensor, source), strict=False))}

    def take(self, first: int, count: int, device: str) -> Batch:
        """Return the windows numbered `first` to `first + count` since the start of training."""
        numbers = range(first, first + count)
        rows, epochs = [self._row(number) for number in numbers], [number // len(self) for number in numbers]
        return _batch(self._windows.in_epochs(rows, epochs), rows, first, device)

    def at(self, rows: Sequence[int], device: str) -> Batch:
        """Return windows by their index in the text, as in the first epoch."""
        return _batch(self._windows.in_epochs(rows, [0] * len(rows)), rows, 0, device)

    def scored(self, first: int, count: int) -> int:
        """Return the number of scored positions in the windows that `take` returns."""
        return int(self.scored_counts[[self._row(number) for number in range(first, first + count)]].sum())

    @cached_property
    def scored_counts(self) -> NDArray[np.int64]:
        """The number of scored positions of each window, in every epoch."""
        counts: NDArray[np.int64] = (self._windows.targets != IGNORED_LABEL).sum(axis=1)
        return counts

    def _row(self, number: int) -> int:
        epoch, position = divmod(number, len(self))
        if epoch != self._epoch:
            self._permutation = np.random.default_rng((self._seed, epoch)).permutation(len(self))
            self._epoch = epoch
        return int(self._permutation[position])


def _batch(windows: PackedWindows, rows: Sequence[int], first: int, device: str) -> Batch:
    source = windows.source
    moved = None if source is None else (_tensor(source[0], device), _tensor(source[1], device))
    return Batch(**_tensors(windows, device), rows=tuple(rows), first=first, source=moved)


def _tensors(windows: PackedWindows, device: str = "cpu") -> dict[str, Tensor]:
    return {
        f"{name}_BT": _tensor(array, device)
        for name, array in (
            ("input_ids", windows.input_ids),
            ("targets", windows.targets),
            ("segment_ids", windows.segment_ids),
            ("token_types", windows.token_types),
            ("scores", windows.scores),
        )
        if array is not None
    }


def _tensor(array: NDArray[np.int64] | NDArray[np.float32], device: str = "cpu") -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def scored_windows(windows: PackedWindows) -> PackedWindows:
    """Return the windows that have a scored position.

    Raises:
        InputError: none is left.
    """
    keep = (windows.targets != IGNORED_LABEL).any(axis=1)
    if not keep.any():
        raise InputError(
            "the training text has no token to learn from: every one is a prompt, padding or a first token",
            where=recipe_key("data", "train"),
            remedy="Give longer documents, or instruction data whose responses are not empty.",
        )
    return windows if keep.all() else windows[keep]


def shared_windows(windows: PackedWindows, processes: int, work: Path) -> PackedWindows:
    """Return the windows for several processes, read from files so that none holds all; for one, in memory.

    Args:
        windows: those without a scored position are left out.
        work: a folder for the files that all processes see.

    Raises:
        InputError: as `scored_windows`.
        StageError: the files cannot be written.
    """
    if processes == 1:
        return windows
    try:
        return scored_windows(windows).stored(work / "windows")
    except OSError as error:
        raise StageError(
            f"the training windows cannot be written: {error}",
            where=work,
            remedy="Make room there and run the command again.",
            transient=True,
        ) from error
