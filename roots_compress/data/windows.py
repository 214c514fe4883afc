"""Token windows: what training, calibration and evaluation read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from roots_compress.configs.base import LEAST_BLOCK_SIZE
from roots_compress.errors import InputError, Key, Text

IGNORED_LABEL = -100
START = -1
"""In tokens of targets: the one that a decoder begins with, which is the model's own and no tokenizer's."""


def or_shorter(key: Key, tokens: int) -> str:
    """Return the advice to shorten windows to what a text fills; nothing where that is no window."""
    return Text(", or set ", key, f" to {tokens} or less") if tokens >= LEAST_BLOCK_SIZE else ""


def following(input_ids_NT: NDArray[np.int64], scored_NT: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return what a causal model is to say: at each position the token after it, where that one is scored."""
    targets_NT = np.full_like(input_ids_NT, IGNORED_LABEL)
    targets_NT[:, :-1] = np.where(scored_NT[:, 1:], input_ids_NT[:, 1:], IGNORED_LABEL)
    return targets_NT


def padded(
    rows: Sequence[Sequence[int] | NDArray[Any]], value: int, width: int | None = None
) -> NDArray[np.int64]:
    """Return rows as one array, filled up on the right to the longest of them, or to a width."""
    found = np.full((len(rows), width or max(map(len, rows))), value, dtype=np.int64)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found


Array = TypeVar("Array")
"""A numpy array, or a tensor."""


def model_inputs(
    ids: Array, segments: Array, source: tuple[Array, Array] | None, token_types: Array | None
) -> dict[str, Array]:
    """Return what a model reads of windows, by the names of its arguments.

    Args:
        source: of pairs the same of their sources, which an encoder reads.
        token_types: of what text of a pair each is that an encoder alone reads; None where all are 0.
    """
    if source is None:
        types = {} if token_types is None else {"token_type_ids": token_types}
        return {"input_ids": ids, "segment_ids": segments, **types}
    names = ("input_ids", "segment_ids", "decoder_input_ids", "decoder_segment_ids")
    return dict(zip(names, (*source, ids, segments), strict=True))


def _opened(folder: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return arrays that are read from their files when they are asked for; nothing is written back."""
    try:
        return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in names}
    except OSError as error:
        raise InputError(
            f"a process cannot open the windows that it is to read: {error}",
            where=folder,
            remedy="Keep the run in a folder that all machines share.",
        ) from None


@dataclass(frozen=True)
class PackedWindows:
    """Fixed windows of packed documents; N windows of T tokens."""

    input_ids: NDArray[np.int64]
    """`(N, T)`."""
    targets: NDArray[np.int64]
    """`(N, T)`: what a model is to say at each position, a token or a label; -100 where nothing is scored."""
    segment_ids: NDArray[np.int64]
    """`(N, T)`: number of the document within its window; tokens attend within their document only."""
    token_types: NDArray[np.int64] | None = field(default=None, kw_only=True)
    """`(N, T)`: 1 in the second text of a pair; None where all are 0."""
    scores: NDArray[np.float32] | None = field(default=None, kw_only=True)
    """`(N, T)`: at the first position of a text the number that is right for it, else NaN; None where none is
    known."""
    folder: Path | None = field(default=None, init=False, compare=False)
    """Holds the arrays, where they are stored; windows that are made of stored ones are not."""

    def __getitem__(self, chosen: slice | NDArray[np.bool_ | np.int64]) -> PackedWindows:
        """Return some of the windows."""
        return self._with({name: array[chosen] for name, array in self.arrays().items()})

    def _with(self, arrays: Mapping[str, Any]) -> Self:
        return replace(self, **arrays)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what there is of each position, by the names of the fields."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def source(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Tokens and segments, `(N, S)` each, of the sources of pairs; None of other windows."""
        return None

    def inputs(self) -> dict[str, NDArray[np.int64]]:
        """Return what a model reads of the windows, by the names of its arguments."""
        return model_inputs(self.input_ids, self.segment_ids, self.source, self.token_types)

    def stored(self, folder: Path) -> Self:
        """Return the windows with their arrays in files, of which memory holds what is being read.

        Another process that is sent them opens the same files.

        Raises:
            OSError: they cannot be written.
        """
        if self.folder is not None:
            return self
        folder.mkdir(exist_ok=True)
        arrays = self.arrays()
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        found = self._with(_opened(folder, arrays))
        object.__setattr__(found, "folder", folder)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process: without arrays that lie in files."""
        apart = {} if self.folder is None else self.arrays()
        return {name: value for name, value in vars(self).items() if name not in apart}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what another process sent.

        Raises:
            InputError: the files are not there.
        """
        vars(self).update(state)
        if self.folder is not None:
            lacking = [each.name for each in fields(self) if each.name not in state]
            vars(self).update(_opened(self.folder, lacking))

    def in_epochs(self, rows: Sequence[int], epochs: Sequence[int]) -> PackedWindows:
        """Return some of the windows, each as training reads it in an epoch, counted from 0: always alike."""
        return self[np.array(rows, dtype=np.int64)]

    def fixed(self) -> PackedWindows:
        """Return the windows as the first epoch reads them, for every epoch."""
        return self

    def beginning(self, tokens: int) -> PackedWindows:
        """Return the windows cut off after so many tokens; shorter ones stay as they are."""
        return self._with({name: array[:, :tokens] for name, array in self.arrays().items()})


@dataclass(frozen=True)
class EvaluationWindows:
    """Held-out windows for perplexity; every token after a window's first is scored exactly once.

    Where the tokenizer adds BOS to a text, every window opens with it. Where it adds none, a window opens
    with the token before its own in the text, which it does not score.
    """

    input_ids: NDArray[np.int64]
    """`(N, T)`."""
    bos: bool
    text_bytes: int
    """UTF-8 bytes of the scored tokens' text; a character counts with the token that begins it."""
    text_sha256: str
    tokenizer_sha256: str

    @property
    def scored_tokens(self) -> int:
        """Tokens whose probability enters the perplexity."""
        return int(self.input_ids[:, 1:].size)
