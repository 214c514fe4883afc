"""Pairs of a source and a target as model inputs: single for evaluation, packed for training and calibration.

Shape legend: N pairs or windows, S tokens of sources, T tokens of targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import SOURCE, TARGET, Document
from roots_compress.data.encoding import bytes_of_tokens, encode
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.languages import language_of, target_frame, target_tokenizer
from roots_compress.data.special_tokens import closing_ids, missing_ending, opening_ids
from roots_compress.data.texts import EVALUATED_LENGTH, evenly, kept_part
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import IGNORED_LABEL, START, EvaluationWindows, padded
from roots_compress.errors import InputError, Key

Ids = NDArray[np.int64]


class Frame(NamedTuple):
    """Tokens around a text: the tokenizer's, or EOS at its end if the tokenizer adds none."""

    opening: list[int]
    closing: list[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, name: str = SOURCE) -> Frame:
        """Return that of a tokenizer. If it adds no end, a BOS before targets would be useless.

        Raises:
            InputError: it has languages, and nothing names that of the targets.
        """
        if not closing_ids(tokenizer):
            return cls([], missing_ending([], tokenizer))
        if name == TARGET:
            return cls(*target_frame(tokenizer))
        return cls(opening_ids(tokenizer), closing_ids(tokenizer))

    def around(self, ids: Sequence[int]) -> list[int]:
        """Return a text's tokens with those around them."""
        return [*self.opening, *ids, *self.closing]

    def room(self, longest: int, key: Key) -> int:
        """Return the tokens of text that are left of `longest`.

        Raises:
            InputError: there are none.
        """
        room = longest - len(self.opening) - len(self.closing)
        if room < 1:
            raise InputError(
                f"{longest} tokens have no room for text between what is put around it",
                where=key,
                remedy="Raise it.",
            )
        return room


class Side(NamedTuple):
    """The tokens of a text, and their UTF-8 bytes."""

    ids: list[int]
    text_bytes: int


def sides(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, longest: int, *, name: str, key: Key
) -> list[Side]:
    """Return texts as sources or targets, each cut to this many tokens.

    Args:
        longest: most tokens, with what is put around a text.

    Raises:
        InputError: there is no room for text.
    """
    frame = Frame.of(tokenizer, name)
    tokenizer = target_tokenizer(tokenizer) if name == TARGET else tokenizer
    room = frame.room(longest, key)
    ids: list[list[int]] = [[] for _ in texts]
    counts: list[list[int]] = [[] for _ in texts]
    uncounted = 0
    for piece in encode(texts, tokenizer):
        uncounted = uncounted if piece.start else 0
        token_bytes, uncounted = bytes_of_tokens(texts[piece.number], piece, uncounted)
        ids[piece.number].extend(piece.tokens.ids.tolist())
        counts[piece.number].extend(token_bytes.tolist())
    kept = kept_part(tokenizer, room)
    return [Side(frame.around(each[kept]), sum(of[kept])) for each, of in zip(ids, counts, strict=True)]


@dataclass(frozen=True)
class EvaluationPairs(EvaluationWindows):
    """Single pairs, padded on the right; `input_ids` are the sources."""

    mask: Ids = field(kw_only=True)
    """`(N, S)`, 0 at padding."""
    targets: Ids = field(kw_only=True)
    """`(N, T)`, -100 at padding."""
    references: tuple[str, ...] = field(kw_only=True)
    """The targets as they were given."""
    opening: tuple[int, ...] = field(kw_only=True)
    """The forced first token of each target: its language's, if it has one."""
    tokenizer: PreTrainedTokenizerFast = field(kw_only=True)
    """Decodes the model's output."""

    @property
    def scored(self) -> NDArray[np.bool_]:
        """`(N, T)`, False at padding of targets."""
        scored_NT: NDArray[np.bool_] = self.targets != IGNORED_LABEL
        return scored_NT

    @property
    def scored_tokens(self) -> int:
        return int(self.scored.sum())

    def decoder_tokens(self, start: int) -> Ids:
        """Return the decoder's inputs after a start token, `(N, T)`; any token at padding."""
        read_NT = np.where(self.scored, self.targets, start)
        return np.concatenate((np.full_like(read_NT[:, :1], start), read_NT[:, :-1]), axis=1)


def shifted(target: Sequence[int]) -> list[int]:
    """Return the decoder's inputs for a target."""
    return [START, *target[:-1]]


def evaluation_pairs(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, limit: int
) -> EvaluationPairs:
    """Return evenly spaced pairs, each side cut to this many tokens.

    Args:
        longest: most tokens of a source, and of a target.

    Raises:
        InputError: there is no room for text.
    """
    chosen = evenly(documents, limit)
    texts = {name: [each.named(name) for each in chosen] for name in (SOURCE, TARGET)}
    read, said = (
        sides(each, tokenizer, longest, name=name, key=EVALUATED_LENGTH) for name, each in texts.items()
    )
    opening = () if language_of(tokenizer) is None else tuple(target_frame(tokenizer)[0])
    pad = tokenizer.pad_token_id or 0
    return EvaluationPairs(
        input_ids=padded([each.ids for each in read], pad),
        bos=bool(Frame.of(tokenizer).opening),
        text_bytes=sum(each.text_bytes for each in said),
        text_sha256=text_sha256(documents),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        mask=padded([[1] * len(each.ids) for each in read], 0),
        targets=padded([each.ids for each in said], IGNORED_LABEL),
        references=tuple(texts[TARGET]),
        opening=opening,
        tokenizer=tokenizer,
    )
