"""The tokenizer of BERT's kind: words by spaces and punctuation, each the longest pieces that it has.

llama.cpp writes a space before a piece that begins a word, where BERT's files write `##` before the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.gguf.vocabulary import (
    KEY,
    NORMAL,
    SPACE,
    TOKENS,
    Vocabulary,
    add_tokens,
    first_of,
    within,
)

CONTINUING = "##"
SPECIAL = {
    "cls_token": ("cls_token_id", "bos_token_id"),
    "sep_token": ("seperator_token_id", "eos_token_id"),
    "unk_token": ("unknown_token_id",),
    "pad_token": ("padding_token_id",),
    "mask_token": ("mask_token_id",),
}
"""transformers' name of a special token, and the keys of its id, the first of which counts."""
DEFAULTS = {"cls_token": 101, "sep_token": 102, "unk_token": 100, "pad_token": 0, "mask_token": 103}
"""llama.cpp's defaults."""
NEEDED = ("cls_token", "sep_token", "unk_token")


def word_tokenizer(given: Vocabulary) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a file of the kind `bert`.

    Raises:
        InputError: a special token is missing, or the file does not say how texts are to be read.
    """
    ordinary = [kind == NORMAL for kind in given.types]
    tokens = [_spelled(token, each) for token, each in zip(given.tokens, ordinary, strict=False)]
    vocabulary = replace(given, tokens=tokens)
    vocabulary.refuse_doubles()
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    capital = (
        token for token, each in zip(tokens, ordinary, strict=False) if each and token != token.lower()
    )
    if lowercase and (found := next((token for token in capital if not _is_bracketed(token)), None)):
        vocabulary.refuse(
            f"{TOKENS} has {found!r}, but {KEY}normalizer.lowercase does not say that texts keep capitals"
        )
    special = _special(vocabulary)
    backend = _backend(
        vocabulary,
        tokens[special["unk_token"]],
        lowercase=lowercase,
        strip_accents=vocabulary.flag("normalizer.strip_accents", lowercase),
    )
    add_tokens(backend, vocabulary, set(special.values()))
    backend.post_processor = _framed(tokens, special)
    names = {name: tokens[index] for name, index in special.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def _special(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the special tokens by transformers' names."""
    special = {}
    for name, keys in SPECIAL.items():
        said = next((found for key in keys if (found := vocabulary.token_id(key)) is not None), None)
        index = first_of(said, within(DEFAULTS[name], vocabulary))
        if index is not None and not vocabulary.is_ordinary(index):
            special[name] = index
        elif name in NEEDED:
            vocabulary.refuse(f"{KEY}{keys[0]} names no special token, and texts are read with one")
    return special


def _spelled(token: str, ordinary: bool) -> str:
    """Return a token as BERT's vocabularies spell it: without the space, or with `##` in its stead."""
    if token.startswith(SPACE):
        return token[len(SPACE) :]
    # Earlier converters left `[unused0]` and the like as they are, without saying that they are special.
    return token if not ordinary or _is_bracketed(token) else CONTINUING + token


def _is_bracketed(token: str) -> bool:
    return len(token) > 2 and token[0] + token[-1] == "[]"


def _backend(vocabulary: Vocabulary, unknown: str, *, lowercase: bool, strip_accents: bool) -> Tokenizer:
    """Return the tokenizer of a vocabulary in BERT's spelling."""
    pieces = WordPiece(vocab=vocabulary.ids, unk_token=unknown, continuing_subword_prefix=CONTINUING)
    backend = Tokenizer(pieces)
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=CONTINUING)
    return backend


def _framed(tokens: Sequence[str], special: Mapping[str, int]) -> processors.PostProcessor:
    """Return the processor that puts a text between two special tokens, always, as llama.cpp does."""
    first, last = special["cls_token"], special["sep_token"]
    return processors.TemplateProcessing(
        single=["cls_token", "$A", "sep_token"],
        pair=["cls_token", "$A", "sep_token", "$B:1", "sep_token:1"],
        special_tokens=[
            {"id": name, "ids": [index], "tokens": [tokens[index]]}
            for name, index in (("cls_token", first), ("sep_token", last))
        ],
    )
