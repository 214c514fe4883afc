"""The kinds of vocabulary that a GGUF file may hold."""

from __future__ import annotations

from collections.abc import Callable

from tests.compare.ggufs import Vocabulary, byte_level_vocabulary, sentencepiece_vocabulary
from tests.compare.kinds import KINDS


def _byte_level(kind: str, pre: str, add_bos: bool | None = None) -> Callable[[], Vocabulary]:
    described = KINDS[kind]
    # A GGUF file always names a BOS; of Qwen's kind it is not put before a text.
    bos = described.bos or "<|endoftext|>"
    return lambda: byte_level_vocabulary(described.build(), pre, bos=bos, eos=described.eos, add_bos=add_bos)


def _sentencepiece(
    kind: str, add_space_prefix: bool | None = None, add_bos: bool | None = None
) -> Callable[[], Vocabulary]:
    return lambda: sentencepiece_vocabulary(
        KINDS[kind].build(), add_space_prefix=add_space_prefix, add_bos=add_bos
    )


VOCABULARIES = {
    "gpt-2": _byte_level("gpt2", "gpt-2"),
    "gpt-2, with BOS": _byte_level("gpt2", "gpt-2", add_bos=True),
    "llama-bpe": _byte_level("llama3", "llama-bpe"),
    "llama-bpe, without BOS": _byte_level("llama3", "llama-bpe", add_bos=False),
    "qwen2": _byte_level("qwen2", "qwen2", add_bos=False),
    "smollm": _byte_level("smollm", "smollm"),
    "user-defined": _byte_level("added tokens", "gpt-2"),
    "llama": _sentencepiece("llama2"),
    "llama, with a space": _sentencepiece("llama2", add_space_prefix=True, add_bos=True),
    "llama, without a space": _sentencepiece("gemma", add_space_prefix=False),
    "llama, without BOS": _sentencepiece("llama2", add_bos=False),
}
"""Each as a function: training its tokenizer takes a moment."""
