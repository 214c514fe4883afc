"""A tiny tokenizer and text with characters of one to four bytes."""

from __future__ import annotations

import copy

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from roots_compress.configs.data import TokenizerConfig
from roots_compress.data.documents import Document
from roots_compress.data.tokenizers import train_tokenizer

SENTENCES = (
    "The quick brown fox jumps over the lazy dog. ",
    "Ein Bär fraß süße Äpfel; 漢字 und кириллица. ",
    "Emoji such as 🙂 or 👩‍👧 take four bytes and more.\n\n",
    "\tdef add(a, b):\n\t\treturn a + b\n",
)


@pytest.fixture(scope="session")
def documents() -> tuple[Document, ...]:
    """Forty documents of different lengths."""
    return tuple(
        Document.plain(
            "".join(SENTENCES[(number + part) % 4] for part in range(1 + number % 7)) + str(number)
        )
        for number in range(40)
    )


@pytest.fixture(scope="session")
def tokenizer(documents: tuple[Document, ...]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 entries, with BOS and EOS."""
    return train_tokenizer(documents, TokenizerConfig(vocab_size=300))


@pytest.fixture
def bare_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer without BOS and EOS."""
    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    bare.bos_token = bare.eos_token = None
    return bare
