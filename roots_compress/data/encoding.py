"""Text to tokens: in batches of bounded size, keeping only arrays.

A tokenizer's result takes hundreds of bytes for each byte of text, so only one batch of it exists at a time.
The call runs in a thread, so that Ctrl-C works immediately.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from roots_compress.data.pieces import CONTEXT_CHARACTERS, context_after, context_before, cut_places
from roots_compress.errors import InputError, RootsError
from roots_compress.system.background import interruptible
from roots_compress.system.memory import available_memory

BATCH_CHARACTERS = 1 << 19
"""Text tokenised in one call: enough to keep the tokenizer's threads busy, with a result of about 100 MB."""

BYTES_A_CHARACTER = 100
"""Least memory of a tokenizer, per character, for a text that it cannot cut into words."""
SPACE_BYTE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"
"""The space in byte-level tokenizers' vocabularies."""

Ids = NDArray[np.int32]
Places = NDArray[np.int64]


class Tokens(NamedTuple):
    """The tokens of a text, or of a piece of it."""

    ids: Ids
    starts: Places
    """The character of the text that each token begins at, and the one that it ends before."""
    ends: Places


class Piece(NamedTuple):
    """A piece of a text and its tokens."""

    number: int
    """Of the text, from 0."""
    start: int
    """Its characters: from the first, up to and without the last."""
    end: int
    tokens: Tokens


class _Part(NamedTuple):
    """A planned piece, and the characters that are tokenised for it: its own and some before and after."""

    number: int
    start: int
    end: int
    read_start: int
    read_end: int


def encode(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, *, places: bool = True
) -> Iterator[Piece]:
    """Yield the tokens of texts, without special tokens that a text does not spell out itself.

    A long text comes in pieces, which together have the tokens of the whole: at every cut the tokens on both
    sides must be the same whether they are read from the left or from the right, and none may reach across.
    A text for which this is not so is read as a whole from there on.

    Args:
        places: whether the tokens' `starts` and `ends` are asked for; without, they may be zeros.

    Raises:
        InputError: a text that cannot be cut has more tokens than fit in memory at once.
    """
    backend = _plain_backend(tokenizer)
    pending: tuple[str, _Part, Tokens] | None = None  # Not yet compared with the part after it.
    whole = -1  # The text that is read as a whole from some place on.
    for text, part, tokens in _encoded_parts(texts, backend, places):
        if part.number == whole:
            continue
        if pending is not None and part.start > 0 and not _agree(pending[2], tokens, part.start):
            left, pending, whole = pending[1], None, part.number
            rest = left._replace(end=len(text), read_end=len(text))
            yield _own(text, rest, _encode_batch([(text, rest)], backend, places=True)[0])
            continue
        if pending is not None:
            yield _own(*pending)
        pending = text, part, tokens
    if pending is not None:
        yield _own(*pending)


def joined(pieces: Iterable[Piece]) -> Tokens:
    """Return the tokens of one text's pieces, one after another."""
    parts = [piece.tokens for piece in pieces]
    return Tokens(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
    )


def first_characters(tokens: Tokens, tokenizer: PreTrainedTokenizerFast) -> Places:
    """Return the character that each token begins with, also where its offset leaves out the token's spaces.

    Byte-level tokenizers with `trim_offsets` say of " word" that it begins at the w.
    """
    distinct, index = np.unique(tokens.ids, return_inverse=True)
    spellings = (tokenizer.backend_tokenizer.id_to_token(int(token)) or "" for token in distinct)
    spaces = [len(spelling) - len(spelling.lstrip(SPACE_BYTE)) for spelling in spellings]
    before = np.concatenate(([0], np.maximum.accumulate(tokens.ends)[:-1]))
    trimmed = np.maximum(before, tokens.starts - np.array(spaces, np.int64)[index])
    first: Places = np.minimum(tokens.starts, trimmed)
    return first


def bytes_of_tokens(text: str, piece: Piece, carried: int) -> tuple[Places, int]:
    """Return the UTF-8 bytes that each token of a piece is counted for, and those not counted yet.

    A token's bytes reach from the end of what was counted before it to its own end. So spaces that a
    tokenizer trims from its offsets count with the token after them, and a character spelt by several tokens
    counts once, with the first of them.

    Args:
        carried: bytes before the piece that no token was counted for; its first token is.
    """
    part = text[piece.start : piece.end]
    reached = np.clip(np.maximum.accumulate(piece.tokens.ends) - piece.start, 0, len(part))
    if part.isascii():
        size = len(part)
    else:
        codepoints = np.frombuffer(part.encode("utf-32-le"), np.uint32)
        widths = 1 + (codepoints >= 0x80) + (codepoints >= 0x800) + (codepoints >= 0x10000)
        bytes_before = np.concatenate(([0], np.cumsum(widths, dtype=np.int64)))
        reached, size = bytes_before[reached], int(bytes_before[-1])
    if len(reached) == 0:
        return np.zeros(0, np.int64), carried + size
    counts: Places = np.diff(reached, prepend=-carried)
    return counts, size - int(reached[-1])


def marks_beginnings(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether the tokenizer treats a text's beginning differently from text after a line end.

    Those with a space before every text do, as Llama 2's and Mistral's.
    """
    backend = _plain_backend(tokenizer)
    for word in ("a", "The", "1"):
        alone, later = (backend.encode(text, add_special_tokens=False).ids for text in (word, "\n" + word))
        if later[len(later) - len(alone) :] != alone:
            return True
    return False


@contextmanager
def library_faults() -> Iterator[None]:
    """Turn what the tokenizers library raises for a text, its panics included, into an InputError."""
    try:
        yield
    except (RootsError, MemoryError):
        raise
    except BaseException as error:  # A panic is no Exception, and its class has no name to import.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"the tokenizer cannot read a text: {' '.join(str(error).split())[:300]}",
            remedy="Give it a token for unknown text (unk_token), or correct its tokenizer.json.",
        ) from error


def _counts_characters(backend: Tokenizer) -> bool:
    """Whether the tokenizer cuts words by position, so that parts have other tokens than the whole text."""
    rule = backend.pre_tokenizer
    return rule is not None and "FixedLength" in rule.__getstate__().decode()


def _plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return the tokenizer proper, as transformers calls it where neither length nor padding is asked for."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def _encoded_parts(
    texts: Iterable[str], backend: Tokenizer, places: bool
) -> Iterator[tuple[str, _Part, Tokens]]:
    """Yield the parts of all texts, with the tokens of all the characters that are read for each."""
    batch: list[tuple[str, _Part]] = []
    size = 0
    can_cut = not _counts_characters(backend)
    for number, text in enumerate(texts):
        for start, end in pairwise(cut_places(text) if can_cut else [0, len(text)]):
            part = _Part(number, start, end, context_before(text, start), context_after(text, end))
            if batch and size + end - start > BATCH_CHARACTERS:
                yield from _with_tokens(batch, backend, places)
                batch, size = [], 0
            batch.append((text, part))
            size += end - start
    yield from _with_tokens(batch, backend, places)


def _with_tokens(
    batch: list[tuple[str, _Part]], backend: Tokenizer, places: bool
) -> Iterator[tuple[str, _Part, Tokens]]:
    if batch:
        cut = any(part.end - part.start < len(text) for text, part in batch)
        for (text, part), tokens in zip(batch, _encode_batch(batch, backend, places or cut), strict=True):
            yield text, part, tokens


def _encode_batch(batch: list[tuple[str, _Part]], backend: Tokenizer, places: bool) -> list[Tokens]:
    """Return the tokens of what is read for each part, at their places in its whole text."""
    texts = [text[part.read_start : part.read_end] for text, part in batch]
    _check_memory(max(texts, key=len))
    call = backend.encode_batch if places else backend.encode_batch_fast

    def work() -> list[Tokens]:
        with library_faults():
            encodings = call(texts, add_special_tokens=False)
        encodings.reverse()  # Each is let go when its arrays are made.
        return [_arrays(encodings.pop(), part.read_start, places) for _, part in batch]

    return interruptible(work)


def _check_memory(text: str) -> None:
    """Refuse a text that cannot be cut and whose tokens would take more memory than there is.

    Raises:
        InputError: it is such a one; the system would end the program without a word.
    """
    needed = len(text) * BYTES_A_CHARACTER
    if len(text) > BATCH_CHARACTERS and (available := available_memory()) is not None and needed > available:
        raise InputError(
            f"a text has {len(text):,} characters without a place to cut it, from {text[:20]!r} on; it "
            f"takes {needed / 1e9:.1f} GB of memory to tokenise, and {available / 1e9:.1f} GB are free",
            remedy="Break it into lines, or leave it out.",
        )


def _arrays(encoding: Encoding, first: int, places: bool) -> Tokens:
    ids = np.array(encoding.ids, np.int32)
    if not places:
        return Tokens(ids, np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64))
    offsets = (
        np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(ids)).reshape(-1, 2) + first
    )
    return Tokens(ids, offsets[:, 0].copy(), offsets[:, 1].copy())


def _agree(left: Tokens, right: Tokens, cut: int) -> bool:
    """Return whether two tokenisations agree around a cut, with no token across it."""
    near = CONTEXT_CHARACTERS // 2
    ids: list[list[int]] = []
    places: list[list[int]] = []
    for tokens in (left, right):
        around = (tokens.starts >= cut - near) & (tokens.starts < cut + near)
        if ((tokens.starts < cut) & (tokens.ends > cut)).any():
            return False
        ids.append(tokens.ids[around].tolist())
        places.append(tokens.starts[around].tolist())
    return ids[0] == ids[1] and places[0] == places[1]


def _own(text: str, part: _Part, tokens: Tokens) -> Piece:
    """Return a part with the tokens that begin in it; those at the text's end belong to the last."""
    own = tokens.starts >= part.start
    if part.end < len(text):
        own &= tokens.starts < part.end
    kept = tokens if own.all() else Tokens(tokens.ids[own], tokens.starts[own], tokens.ends[own])
    return Piece(part.number, part.start, part.end, kept)
