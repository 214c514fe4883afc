"""Conversations as model inputs: packed whole into windows for training, and single ones for evaluation.

Shape legend: N windows or conversations, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from roots_compress.data.chat.rendering import own_format, rendered, template_of
from roots_compress.data.documents import Document
from roots_compress.data.encoding import encode, joined
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.packing import BATCH_DOCUMENTS, Flags, Ids, shuffled, tokenised
from roots_compress.data.special_tokens import missing_opening, opening_ids
from roots_compress.data.texts import evaluated
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import IGNORED_LABEL, EvaluationWindows, PackedWindows, following, padded
from roots_compress.errors import InputError, Text, recipe_key

OPEN_WINDOWS = 16
"""Windows that wait for a fitting conversation; more would waste less space, and take more memory."""


@dataclass(frozen=True)
class PackedConversations(PackedWindows):
    """Windows of whole conversations, with only the answers scored."""

    conversations: int = 0
    """Conversations in them; one for each answer if a chat template makes separate texts."""
    cut: int = 0
    """Those that are longer than a window: their end is left out."""
    left_out: int = 0
    """Conversations without an answer that begins within a window's length; they are left out."""


@dataclass(frozen=True)
class Responses(EvaluationWindows):
    """Held-out conversations padded on the right to one length, with only the answers scored."""

    scored: NDArray[np.bool_] = field(kw_only=True)
    """`(N, T)`."""

    @property
    def scored_tokens(self) -> int:
        return int(self.scored.sum())


def pack_conversations(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    *,
    seed: int,
    limit: int | None = None,
) -> PackedConversations:
    """Pack whole conversations into windows of `block_size` tokens, in a random order from `seed`.

    Each conversation goes into the fullest of a few windows that have room for it. The remaining space is
    filled with the window's first tokens, as a separate unscored text: padding would enter calibration
    statistics as if it were text. Conversations without a format are read in the tokenizer's template.
    Arguments are those of `pack`.

    Raises:
        InputError: no answer begins within a window, or the conversations cannot be rendered.
    """
    order = shuffled(documents, np.random.default_rng(seed))
    closed: list[list[tuple[Ids, Flags]]] = []
    opened: list[list[tuple[Ids, Flags]]] = []
    packed = cut = left_out = 0
    for start in range(0, len(order), BATCH_DOCUMENTS):
        if limit is not None and len(closed) >= limit:
            break
        for ids_T, scored_T in _framed(order[start : start + BATCH_DOCUMENTS], tokenizer):
            cut += len(ids_T) > block_size
            if not scored_T[:block_size].any():
                left_out += 1
                continue
            packed += 1
            _place((ids_T[:block_size], scored_T[:block_size]), opened, block_size)
            if len(opened) > OPEN_WINDOWS:
                opened.sort(key=_filled)
                closed.append(opened.pop())
    closed += sorted(opened, key=_filled, reverse=True)
    if not closed:
        raise InputError(
            f"no answer begins within {block_size} tokens, in any of the {len(order)} conversations",
            where=recipe_key("data", "train"),
            remedy="Raise the block size, or give shorter conversations.",
        )
    ids, targets, segments = zip(*(_window(each, block_size) for each in closed[:limit]), strict=True)
    return PackedConversations(
        np.stack(ids),
        np.stack(targets),
        np.stack(segments),
        conversations=packed,
        cut=cut,
        left_out=left_out,
    )


def responses(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, *, longest: int, tokens: int
) -> Responses:
    """Return evenly spaced held-out conversations, with only the answers scored.

    The choice does not depend on the tokenizer. The bytes do not depend on the chat format: they are the
    assistant's content. The tokens of the format's marks after an answer are scored too.

    Args:
        longest: most tokens of a conversation; the rest of a longer one is left out.
        tokens: of all together, at `BYTES_PER_TOKEN`; at least one is returned.

    Raises:
        InputError: in none of them does an answer begin within that length.
    """
    chosen = evaluated(documents, longest, tokens)
    answers = (turn.text.strip() for document in chosen for turn in document.spans if turn.scored)
    texts = list(rendered(chosen, tokenizer))
    rows: list[tuple[Ids, Flags]] = []
    text_bytes = 0
    for text, (ids, scored) in zip(texts, _framed(texts, tokenizer), strict=True):
        is_cut = len(ids) > longest
        end = _kept_characters(text.text, tokenizer, longest) if is_cut else len(text.text)
        text_bytes += _bytes_said(text, answers, end)
        if scored[:longest].any():
            rows.append((ids[:longest], scored[:longest]))
    if not rows:
        raise InputError(
            f"no answer begins within {longest} tokens, in any held-out conversation",
            where=recipe_key("data", "eval"),
            remedy=Text("Raise ", recipe_key("evaluation", "block_size"), ", or give shorter conversations."),
        )
    return Responses(
        input_ids=padded([ids for ids, _ in rows], tokenizer.pad_token_id or 0),
        bos=bool(opening_ids(tokenizer)),
        text_bytes=max(text_bytes, 1),
        text_sha256=text_sha256(documents),
        tokenizer_sha256=_readers_sha256(chosen[0], tokenizer),
        scored=padded([scored for _, scored in rows], 0).astype(np.bool_),
    )


def _framed(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Ids, Flags]]:
    """Yield each conversation's tokens up to the last scored one, with the tokenizer's BOS."""

    def framed(ids: Ids, scored: Flags, _tokenizer: PreTrainedTokenizerFast) -> tuple[Ids, Flags]:
        before = missing_opening(ids, tokenizer)
        length = len(scored) - int(scored[::-1].argmax())
        ids = np.concatenate((np.array(before, np.int32), ids[:length]))
        scored = np.concatenate((np.full(len(before), False), scored[:length]))
        scored[0] = False  # Nothing before it predicts it.
        return ids, scored

    all_ids, all_scored, lengths = tokenised(documents, tokenizer, None, framed)
    ends = np.cumsum(lengths)
    for start, end in zip(ends - lengths, ends, strict=True):
        yield all_ids[start:end], all_scored[start:end]


def _filled(window: Sequence[tuple[Ids, Flags]]) -> int:
    return sum(len(ids) for ids, _ in window)


def _place(conversation: tuple[Ids, Flags], windows: list[list[tuple[Ids, Flags]]], block_size: int) -> None:
    """Put a conversation into the fullest window that has room for it, or into a new one."""
    room = [window for window in windows if _filled(window) + len(conversation[0]) <= block_size]
    if room:
        max(room, key=_filled).append(conversation)
    else:
        windows.append([conversation])


def _window(
    conversations: Sequence[tuple[Ids, Flags]], block_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens, targets and numbers of conversations in a window."""
    ids = np.concatenate([ids for ids, _ in conversations]).astype(np.int64)
    scored = np.concatenate([scored for _, scored in conversations])
    segments = np.repeat(np.arange(len(conversations)), [len(ids) for ids, _ in conversations])
    empty = (0, block_size - len(ids))
    return (
        np.pad(ids, empty, mode="wrap"),
        np.pad(following(ids[None], scored[None])[0], empty, constant_values=IGNORED_LABEL),
        np.pad(segments, empty, constant_values=len(conversations)),
    )


def _bytes_said(text: Document, answers: Iterator[str], end: int) -> int:
    """Return the UTF-8 bytes of the answers in a conversation's text, before its character `end`."""
    size = begin = 0
    for span in text.spans:
        if span.scored:
            answer = next(answers)
            start = begin + span.text.find(answer)
            size += len(text.text[start : min(start + len(answer), end)].encode())
        begin += len(span.text)
    return size


def _kept_characters(text: str, tokenizer: PreTrainedTokenizerFast, tokens: int) -> int:
    """Return the number of a text's characters in its first tokens, special tokens included."""
    found = joined(encode([text], tokenizer))
    kept = tokens - len(missing_opening(found.ids, tokenizer))
    return int(found.ends[:kept].max(initial=0))


def _readers_sha256(document: Document, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a fingerprint of everything that determines a conversation's ids: tokenizer and chat format."""
    own = own_format(document, tokenizer)
    template = template_of(tokenizer) if own is None else own.template
    return hashlib.sha256(f"{tokenizer_sha256(tokenizer)} {template}".encode()).hexdigest()
