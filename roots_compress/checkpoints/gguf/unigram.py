"""The tokenizer of T5's and XLM-RoBERTa's kind: the likeliest pieces of a text, by SentencePiece's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from roots_compress.checkpoints.gguf.vocabulary import CHARACTERS, KEY, SCORES, UNUSED, Vocabulary

UNKNOWN_ID = 2
"""llama.cpp's defaults."""


def unigram(vocabulary: Vocabulary) -> Tokenizer:
    """Return the tokenizer of a file of the kind `t5`, without special tokens.

    Raises:
        InputError: it has no scores, or its table of characters is damaged.
    """
    scores, unknown = vocabulary.scores, vocabulary.token_id("unknown_token_id")
    if scores is None:
        vocabulary.refuse(f"has no {SCORES}, by which a tokenizer of the kind 't5' cuts a text")
    unknown = UNKNOWN_ID if unknown is None else unknown
    if unknown >= len(vocabulary.tokens):
        vocabulary.refuse(f"{KEY}unknown_token_id names no token")
    spare = min(scores)
    entries = [
        (token, spare if kind == UNUSED else score)
        for token, kind, score in zip(vocabulary.tokens, vocabulary.types, scores, strict=False)
    ]
    backend = Tokenizer(Unigram(entries, unk_id=unknown))
    spaced = "always" if vocabulary.flag("add_space_prefix", False) else "never"
    steps: list[Any] = [_characters(vocabulary)] if vocabulary.characters else []
    if vocabulary.flag("remove_extra_whitespaces", False):
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=spaced)
    backend.decoder = decoders.Metaspace(prepend_scheme=spaced)
    return backend


def _characters(vocabulary: Vocabulary) -> normalizers.Precompiled:
    table = vocabulary.characters
    try:
        if not _is_sound(table):
            raise ValueError
        return normalizers.Precompiled(table)
    except Exception:  # tokenizers' errors share no class of their own.
        vocabulary.refuse(f"{CHARACTERS} is no table of characters", "Copy the file again.")


def _is_sound(table: bytes) -> bool:
    """Return whether no text leads out of a table, where tokenizers would stop the process.

    It holds the size of a double array, the array, and texts that each end in a zero. A unit of the array
    without the highest bit leads to the units of 256 next characters; one of a leaf, to the place of a text.
    """
    size = int.from_bytes(table[:4], "little")
    texts = np.frombuffer(table[4 + size :], dtype=np.uint8)
    if size == 0 or size % 4 or len(table) <= 4 + size:
        return False
    units = np.frombuffer(table[4 : 4 + size], dtype="<u4").astype(np.int64)
    inner = units >> 31 == 0
    next_to = (np.arange(len(units)) ^ (units >> 10) << ((units & 1 << 9) >> 6))[inner]
    if not ((next_to | 255) < len(units)).all():
        return False
    places = units[next_to[(units[inner] & 1 << 8) > 0]] & (1 << 31) - 1
    # A text begins with a character, not in the middle of one.
    return bool((places < len(texts)).all() and (texts[places] & 0xC0 != 0x80).all())
