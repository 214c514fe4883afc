"""The vocabulary of a GGUF file, as its metadata hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import NoReturn

from tokenizers import AddedToken, Tokenizer

from roots_compress.checkpoints.gguf.generation import ENDS, INFILL
from roots_compress.errors import InputError
from roots_compress.io.gguf_header import read_gguf_header

KEY = "tokenizer.ggml."
TOKENS, TYPES, SCORES, MERGES = (KEY + name for name in ("tokens", "token_type", "scores", "merges"))
CHARACTERS = KEY + "precompiled_charsmap"
"""What SentencePiece makes of characters before it cuts a text."""
USE_DIRECTORY = "Use the model's Hugging Face directory, whose tokenizer is read by its own files."
COPY_AGAIN = "Copy the file again."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
"""What SentencePiece writes for a space."""
ALWAYS_CONTROL = ENDS.union(
    chain.from_iterable(INFILL.values()),
    """
    <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>
    <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>
    <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>
    """.split(),  # noqa: SIM905
)
"""Spellings that llama.cpp takes for control tokens whatever type the file gives them."""


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a file, checked."""

    path: Path
    metadata: Mapping[str, object]
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    characters: bytes

    def refuse(self, message: str, remedy: str = USE_DIRECTORY) -> NoReturn:
        """Raise an InputError."""
        raise InputError(message, where=self.path, remedy=remedy)

    def text(self, key: str) -> str | None:
        """Return a text; None where there is none."""
        value = self.metadata.get(KEY + key)
        return value if isinstance(value, str) else None

    def flag(self, key: str, default: bool) -> bool:
        """Return a switch."""
        value = self.metadata.get(KEY + key)
        return value if isinstance(value, bool) else default

    def token_id(self, key: str) -> int | None:
        """Return a special token's id; None where the file names none of the vocabulary's."""
        value = self.metadata.get(KEY + key)
        known = type(value) is int and 0 <= value < len(self.tokens)
        return value if known and isinstance(value, int) else None

    def is_ordinary(self, index: int | None) -> bool:
        """Whether a token is a piece of text like any other."""
        return index is not None and self.types[index] == NORMAL and self.tokens[index] not in ALWAYS_CONTROL

    @property
    def ids(self) -> dict[str, int]:
        """The number of each token."""
        return {token: index for index, token in enumerate(self.tokens)}

    def refuse_doubles(self) -> None:
        """Refuse two tokens of one spelling."""
        ids = self.ids
        for index, token in enumerate(self.tokens):
            if ids[token] != index:
                self.refuse(f"{TOKENS} spells tokens {index} and {ids[token]} alike, {token!r}")


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary of a file.

    Raises:
        InputError: there is none, or it is damaged.
    """
    header = read_gguf_header(path, arrays=(TOKENS, TYPES, SCORES, MERGES, CHARACTERS))
    arrays = header.arrays
    if not all(isinstance(token, str) for key in (TOKENS, MERGES) for token in arrays.get(key, ())):
        raise InputError(f"{TOKENS} or {MERGES} holds no text", where=path, remedy=USE_DIRECTORY)
    if not all(type(kind) is int for kind in arrays.get(TYPES, ())):
        raise InputError(f"{TYPES} holds what is no whole number", where=path, remedy=COPY_AGAIN)
    if not all(isinstance(score, int | float) and isfinite(score) for score in arrays.get(SCORES, ())):
        raise InputError(f"{SCORES} holds what is no finite number", where=path, remedy=COPY_AGAIN)
    tokens = [str(token) or f"[EMPTY_{index}]" for index, token in enumerate(arrays.get(TOKENS, ()))]
    types = [int(kind) for kind in arrays.get(TYPES, [NORMAL] * len(tokens))]
    scores = [float(score) for score in arrays[SCORES]] if SCORES in arrays else None
    merges = [str(merge) for merge in arrays[MERGES]] if MERGES in arrays else None
    if not all(type(byte) is int and -128 <= byte < 256 for byte in arrays.get(CHARACTERS, ())):
        raise InputError(f"{CHARACTERS} holds what is no byte", where=path, remedy=COPY_AGAIN)
    characters = bytes(int(byte) % 256 for byte in arrays.get(CHARACTERS, ()))
    vocabulary = Vocabulary(path, header.metadata, tokens, types, scores, merges, characters)
    if not tokens:
        vocabulary.refuse(f"has no {TOKENS}, so it holds no tokenizer")
    for key, values in ((TYPES, types), (SCORES, scores)):
        if values is not None and len(values) < len(tokens):
            vocabulary.refuse(f"{key} has {len(values)} entries for {len(tokens)} tokens", COPY_AGAIN)
    vocabulary.refuse_doubles()
    return vocabulary


def add_tokens(backend: Tokenizer, vocabulary: Vocabulary, named: set[int]) -> None:
    """Make each token that is no part of ordinary text one that is found by its spelling."""
    name = vocabulary.metadata.get("general.name")
    strips = isinstance(name, str) and any(family in name.lower() for family in ("phi-3", "phi3"))
    added = []
    for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=False)):
        special = kind in (CONTROL, UNKNOWN) or index in named or token in ALWAYS_CONTROL
        if special or kind == USER_DEFINED:
            rstrip = strips and token not in ("<unk>", "<s>", "<|endoftext|>")
            added.append(AddedToken(token, special=special, normalized=False, rstrip=rstrip))
    backend.add_tokens(added)


def first_of(first: int | None, second: int | None) -> int | None:
    """Return the first, unless it is None."""
    return second if first is None else first


def within(index: int | None, vocabulary: Vocabulary) -> int | None:
    """Return a token's number, if there are so many tokens."""
    return index if index is not None and index < len(vocabulary.tokens) else None
