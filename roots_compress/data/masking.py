"""Windows for masked language models: the model predicts masked tokens.

Shape legend: N windows of T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.packing import Flags, pack_texts
from roots_compress.data.special_tokens import require_mask
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows

CHOSEN = 0.15
"""Share of a window's tokens that are chosen."""
MASKED, REPLACED = 0.8, 0.1
"""Shares of the chosen tokens: those replaced by the mask, and by another token; the rest does not change."""


@dataclass(frozen=True)
class Masking:
    """The masking for training a masked language model, as for BERT (Devlin et al. 2019)."""

    mask_id: int
    others: NDArray[np.int64]
    """Ids of ordinary tokens, with which some are replaced."""
    seed: int

    def hidden(
        self, text_T: NDArray[np.int64], maskable_T: Flags, epoch: int, row: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the model's input for a window, and the target at each position.

        How many tokens are chosen depends on the text alone; which ones, on the seed, the epoch and the row.
        """
        places = np.flatnonzero(maskable_T)
        count = max(1, round(CHOSEN * len(places))) if len(places) else 0
        rng = np.random.default_rng((self.seed, epoch, row))
        chosen = rng.permutation(places)[:count]
        fates, replacements = rng.random(count), rng.choice(self.others, count)
        read_T, targets_T = text_T.copy(), np.full_like(text_T, IGNORED_LABEL)
        targets_T[chosen] = text_T[chosen]
        replaced = (fates >= MASKED) & (fates < MASKED + REPLACED)
        read_T[chosen[fates < MASKED]] = self.mask_id
        read_T[chosen[replaced]] = replacements[replaced]
        return read_T, targets_T


@dataclass(frozen=True)
class MaskedWindows(PackedWindows):
    """Windows with new masks in every epoch; their own fields are those of the first."""

    text: NDArray[np.int64]
    """`(N, T)`: the unmasked tokens."""
    maskable: NDArray[np.bool_]
    """`(N, T)`: False at special tokens and where nothing is scored."""
    masking: Masking

    def in_epochs(self, rows: Sequence[int], epochs: Sequence[int]) -> PackedWindows:
        """Return some of the windows, each masked for an epoch, counted from 0."""
        chosen = self[np.array(rows, dtype=np.int64)]
        for place, (row, epoch) in enumerate(zip(rows, epochs, strict=True)):
            if epoch:
                read_and_targets = self.masking.hidden(self.text[row], self.maskable[row], epoch, row)
                chosen.input_ids[place], chosen.targets[place] = read_and_targets
        return chosen

    def fixed(self) -> PackedWindows:
        return PackedWindows(self.input_ids, self.targets, self.segment_ids, token_types=self.token_types)


def pack_masked(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> MaskedWindows:
    """Pack documents as `pack_texts` does, and mask tokens.

    Raises:
        InputError: the documents fill less than one window, or the tokenizer has no mask token.
    """
    require_mask(tokenizer)
    packed = pack_texts(documents, tokenizer, block_size, seed=seed, limit=limit)
    return MaskedWindows(**hidden_in(packed, tokenizer, seed))


def hidden_in(packed: PackedWindows, tokenizer: PreTrainedTokenizerFast, seed: int) -> dict[str, Any]:
    """Return the fields of `MaskedWindows`, for windows whose targets are their own tokens."""
    text_NT = packed.input_ids
    special = np.array(tokenizer.all_special_ids, dtype=np.int64)
    maskable_NT = (packed.targets != IGNORED_LABEL) & ~np.isin(text_NT, special)
    ordinary = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int64), special)
    masking = Masking(require_mask(tokenizer), ordinary, seed)
    hidden = [
        masking.hidden(*each, 0, row) for row, each in enumerate(zip(text_NT, maskable_NT, strict=True))
    ]
    return {
        "input_ids": np.stack([read_T for read_T, _ in hidden]),
        "targets": np.stack([targets_T for _, targets_T in hidden]),
        "segment_ids": packed.segment_ids,
        "text": text_NT,
        "maskable": maskable_NT,
        "masking": masking,
    }
