"""Texts for encoders, each read by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.chat.rendering import rendered
from roots_compress.data.documents import Document
from roots_compress.data.encoding import encode
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.special_tokens import closing_ids, opening_ids, require_mask
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import EvaluationWindows, padded
from roots_compress.errors import InputError, Key, recipe_key

BLANK_LINE = re.compile(r"\n\s*\n")
BYTES_PER_TOKEN = 4
"""Of UTF-8, about: of English in most tokenizers."""
EVALUATED_LENGTH = recipe_key("evaluation", "block_size")

LEAST_PAIR = 2
"""Tokens of text that a pair must have room for: one of each."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class EvaluationTexts(EvaluationWindows):
    """Texts padded on the right to one length; N texts of at most T tokens."""

    mask: NDArray[np.int64]
    """`(N, T)`, 0 at padding."""
    token_types: NDArray[np.int64] | None = field(default=None, kw_only=True)
    """`(N, T)`: 1 in the second text of a pair; None where all are 0."""

    @property
    def scored_tokens(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True, kw_only=True)
class MaskedTexts(EvaluationTexts):
    """Texts in each of which some tokens are hidden in turn; P hidden tokens in all."""

    hidden: NDArray[np.int64] = field(kw_only=True)
    """`(P, 2)`: the text of each, ascending, and its position there."""
    mask_id: int = field(kw_only=True)

    @property
    def scored_tokens(self) -> int:
        return len(self.hidden)


def masked_texts(texts: EvaluationTexts, tokenizer: PreTrainedTokenizerFast, *, most: int) -> MaskedTexts:
    """Choose the tokens that are hidden: of each text all but special ones, or so many at even distances.

    Args:
        most: hidden tokens of a text.

    Raises:
        InputError: the tokenizer has no mask token, or no text has a token to hide.
    """
    ordinary_NT = texts.mask.astype(bool) & ~np.isin(texts.input_ids, tokenizer.all_special_ids)
    hidden = []
    for row, ordinary_T in enumerate(ordinary_NT):
        places = np.flatnonzero(ordinary_T)
        count = min(most, len(places))
        hidden += [(row, places[index * len(places) // count]) for index in range(count)]
    if not hidden:
        raise InputError(
            "the held-out text has special tokens only",
            where=recipe_key("data", "eval"),
            remedy="Give other text, or the model's own tokenizer.",
        )
    return MaskedTexts(**vars(texts), hidden=np.array(hidden, np.int64), mask_id=require_mask(tokenizer))


def evaluation_texts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, limit: int
) -> EvaluationTexts:
    """Return paragraphs of held-out text at even distances, opened and closed as the tokenizer does it.

    Args:
        documents: the text; blank lines part its paragraphs.
        longest: most tokens of a paragraph; the rest of a longer one is left out.

    Raises:
        InputError: there is no text, or no room for one between what opens and closes it.
    """
    parts = (part for document in rendered(documents, tokenizer) for part in BLANK_LINE.split(document.text))
    paragraphs = [part for part in parts if part.strip()]
    if not paragraphs:
        raise InputError(
            "the held-out text is empty", where=recipe_key("data", "eval"), remedy="Give some text."
        )
    chosen = evenly(paragraphs, limit)
    rows = framed_texts(chosen, tokenizer, longest, key=EVALUATED_LENGTH)
    return as_texts(rows, longest, chosen, documents, tokenizer)


def framed_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, longest: int, *, key: Key
) -> list[list[int]]:
    """Return the tokens of texts, opened and closed as the tokenizer does it, each cut to so many.

    The tokenizer says on which side.

    Raises:
        InputError: there is no room for text between what opens and closes it.
    """
    opening, closing, room = frame_of(tokenizer, longest, key=key)
    read: list[list[int]] = [[] for _ in texts]
    for piece in encode(texts, tokenizer, places=False):
        read[piece.number].extend(piece.tokens.ids.tolist())
    kept = kept_part(tokenizer, room)
    return [[*opening, *ids[kept], *closing] for ids in read]


def kept_part(tokenizer: PreTrainedTokenizerFast, room: int) -> slice:
    """Return which tokens of a text are read where it has more than `room`: the first, or the last."""
    return slice(-room, None) if tokenizer.truncation_side == "left" else slice(room)


class Pair(NamedTuple):
    """The tokens of a text or of a pair, and which of the two texts each is of."""

    ids: list[int]
    types: list[int]


def framed_pairs(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, longest: int, *, key: Key
) -> list[Pair]:
    """Return the tokens of texts or pairs as the tokenizer joins them, the longer text cut until they fit.

    Raises:
        InputError: there is no room for text between what the tokenizer puts around it.
    """
    if longest < tokenizer.num_special_tokens_to_add(pair=True) + LEAST_PAIR:
        raise InputError(
            f"{longest} tokens have no room for a pair between what the tokenizer puts around it",
            where=key,
            remedy="Raise it.",
        )
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(longest, direction=tokenizer.truncation_side)
    texts = [tuple(span.text for span in document.spans) for document in documents]
    encodings = backend.encode_batch([each if len(each) > 1 else each[0] for each in texts])
    backend.no_truncation()
    return [Pair(each.ids, each.type_ids) for each in encodings]


def frame_of(
    tokenizer: PreTrainedTokenizerFast, longest: int, *, key: Key
) -> tuple[list[int], list[int], int]:
    """Return what opens and what closes a text of so many tokens, and how many tokens are left for itself.

    Raises:
        InputError: there are none.
    """
    opening, closing = opening_ids(tokenizer), closing_ids(tokenizer)
    room = longest - len(opening) - len(closing)
    if room < 1:
        raise InputError(
            f"{longest} tokens have no room for text between what the tokenizer puts around it",
            where=key,
            remedy="Raise it.",
        )
    return opening, closing, room


def evenly(items: Sequence[Item], limit: int) -> list[Item]:
    """Return at most so many items, at even distances."""
    count = min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def evaluated(documents: Sequence[Document], longest: int, tokens: int) -> list[Document]:
    """Return documents at even distances that have about so many tokens in all, at least one.

    Which ones they are does not depend on the tokenizer, so that models with different ones are compared on
    the same texts.

    Args:
        tokens: of all together, at `BYTES_PER_TOKEN`.
    """
    size = sum(min(len(each.text.encode()), longest * BYTES_PER_TOKEN) for each in documents)
    return evenly(documents, max(1, tokens * BYTES_PER_TOKEN * len(documents) // size))


def as_texts(
    rows: Sequence[list[int]],
    longest: int,
    chosen: Sequence[str],
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    types: Sequence[Sequence[int]] = (),
) -> EvaluationTexts:
    """Return texts, each padded to one length.

    Args:
        documents: the whole text that they are of.
        types: which text of a pair each token is of, for each row; none where all are of the first.
    """
    types_NT = padded(types or [[]], 0, longest)
    return EvaluationTexts(
        input_ids=padded(rows, tokenizer.pad_token_id or 0, longest),
        bos=bool(opening_ids(tokenizer)),
        text_bytes=sum(len(text.encode()) for text in chosen),
        text_sha256=text_sha256(documents),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        mask=padded([[1] * len(ids) for ids in rows], 0, longest),
        token_types=types_NT if types_NT.any() else None,
    )
