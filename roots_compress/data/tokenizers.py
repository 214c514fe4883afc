"""Byte-level BPE tokenizers: training one, and telling whether two are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from roots_compress.configs.data import TokenizerConfig
from roots_compress.data.chat.rendering import rendered
from roots_compress.data.documents import Document
from roots_compress.data.pieces import cut_places
from roots_compress.data.special_tokens import open_with_bos, opening_id
from roots_compress.errors import InputError, Key
from roots_compress.system.background import interruptible

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"


def train_tokenizer(documents: Iterable[Document], config: TokenizerConfig) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Sennrich et al. 2016, over bytes as in GPT-2).

    Any text survives encoding and decoding unchanged. The tokenizer opens each text with BOS, and ends none
    with EOS. The same documents in the same order give the same tokenizer. A short text may hold too few
    frequent pairs to fill `config.vocab_size`: the vocabulary is then smaller.

    Raises:
        InputError: the special tokens are empty or repeated, or leave no room for the 256 bytes.
    """
    special_tokens = [BOS, EOS, PAD, *config.special_tokens]
    if "" in special_tokens or len(set(special_tokens)) < len(special_tokens):
        raise InputError(
            f"special tokens are empty or named twice: {', '.join(map(repr, special_tokens))}",
            where=Key("tokenizer", "special_tokens"),
            remedy=f"Name each once; {BOS}, {EOS} and {PAD} are there already.",
        )
    alphabet = ByteLevel.alphabet()
    if config.vocab_size < len(alphabet) + len(special_tokens):
        raise InputError(
            f"{config.vocab_size} entries cannot hold 256 bytes and {len(special_tokens)} special tokens",
            where=Key("tokenizer", "vocab_size"),
            remedy=f"Set it to {len(alphabet) + len(special_tokens)} or more.",
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special_tokens,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    # Cut where the pre-tokenizer cuts, a long text gives the same words, and takes less memory at a time.
    texts = (piece for document in rendered(documents) for piece in _pieces(document.text))
    interruptible(lambda: tokenizer.train_from_iterator(texts, trainer))
    trained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(config.special_tokens),
        clean_up_tokenization_spaces=False,
    )
    open_with_bos(trained)
    return trained


def _pieces(text: str) -> Iterator[str]:
    for start, end in pairwise(cut_places(text)):
        yield text[start:end]


def tokenizer_sha256(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a fingerprint of everything that decides which ids a text becomes.

    That is the vocabulary, merges, normaliser, pre-tokeniser, added tokens, EOS and the BOS before a text;
    not the padding or truncation last asked for, nor how ids are decoded, which saving may rewrite.
    """
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    content = {key: serialised[key] for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    content["bos"], content["eos"] = opening_id(tokenizer), tokenizer.eos_token_id
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
