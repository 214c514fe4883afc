"""How llama.cpp cuts text into tokens, restated in plain Python from its documentation and the formats' own.

Nothing here is quick, and nothing here comes from the tokenizers library, which is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPLITS = {"gpt-2": (GPT2,), "llama-bpe": (LLAMA3,), "qwen2": (QWEN2,), "smollm": (r"\p{N}", GPT2)}
"""The expressions of a `tokenizer.ggml.pre`, applied one after the other to what the one before left."""
WHOLE_WORDS = ("llama-bpe",)
"""Where a word that is a token is taken as it is, whatever the merges make of it."""


def respelt(data: bytes) -> str:
    """Return bytes in GPT-2's alphabet: printable Latin-1 as it is, other bytes from U+0100 on."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = {byte: 0x100 + place for place, byte in enumerate(b for b in range(256) if b not in kept)}
    return "".join(chr(moved.get(byte, byte)) for byte in data)


def words(text: str, expressions: Sequence[str]) -> list[str]:
    """Return the pieces that merges cannot reach across."""
    pieces = [text]
    for expression in expressions:
        cut = []
        for piece in pieces:
            end = 0
            for match in regex.finditer(expression, piece):
                cut += [piece[end : match.start()], match.group()]
                end = match.end()
            cut.append(piece[end:])
        pieces = [piece for piece in cut if piece]
    return pieces


def merged(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """Join the pair of neighbours of the lowest rank, the first of equals, until none has one."""
    while True:
        ranks = [(r, i) for i, pair in enumerate(pairwise(symbols)) if (r := rank(*pair)) is not None]
        if not ranks:
            return symbols
        _, at = min(ranks)
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


def byte_level_ids(text: str, tokens: Sequence[str], merges: Sequence[str], pre: str) -> list[int]:
    """Return the ids of a text without special tokens, for `tokenizer.ggml.model` gpt2."""
    number = {token: index for index, token in enumerate(tokens)}
    order = {tuple(merge.split(" ")): float(index) for index, merge in enumerate(merges)}
    ids = []
    for word in words(text, SPLITS[pre]):
        spelt = respelt(word.encode("utf-8"))
        if pre in WHOLE_WORDS and spelt in number:
            ids.append(number[spelt])
        else:
            ids += [number[part] for part in merged(list(spelt), lambda a, b: order.get((a, b)))]
    return ids


def sentencepiece_ids(
    text: str, tokens: Sequence[str], scores: Sequence[float], *, prefix: bool
) -> list[int]:
    """Return the ids of a text without special tokens, for `tokenizer.ggml.model` llama."""
    if not text:
        return []
    number = {token: index for index, token in enumerate(tokens)}

    def rank(left: str, right: str) -> float | None:
        return -scores[number[left + right]] if left + right in number else None

    ids = []
    for part in merged(list((" " * prefix + text).replace(" ", "▁")), rank):
        if part in number:
            ids.append(number[part])
        else:
            ids += [number[f"<0x{byte:02X}>"] for byte in part.encode("utf-8")]
    return ids


def with_special(text: str, special: dict[str, int], plain: Callable[[str], list[int]]) -> list[int]:
    """Return the ids of a text that may spell special tokens, each of which stays one: longest first."""
    pieces: list[str | int] = [text]
    for token in sorted(special, key=len, reverse=True):
        cut: list[str | int] = []
        for piece in pieces:
            if isinstance(piece, int):
                cut.append(piece)
                continue
            parts = piece.split(token)
            for index, part in enumerate(parts):
                cut += [part] if index == 0 else [special[token], part]
        pieces = [piece for piece in cut if piece != ""]
    return [token for piece in pieces for token in ([piece] if isinstance(piece, int) else plain(piece))]
