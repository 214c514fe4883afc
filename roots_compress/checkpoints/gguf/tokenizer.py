"""The tokenizer of a GGUF file, built from its metadata by llama.cpp's rules.

Every token keeps its number and spelling, and nothing is added: ids are those of llama.cpp with its special
tokens parsed, as in a prompt. Five kinds of vocabulary can be read: `gpt2`, byte-level merges within words
(`splits.py`); `llama`, SentencePiece's merges by score over the whole text, with bytes for what is no token;
`gemma4`, merges of characters within lines, with such bytes; `t5`, the likeliest pieces (`unigram.py`); and
`bert`, the longest pieces of words (`wordpiece.py`).
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md describes the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.gguf.splits import RULES, Rules
from roots_compress.checkpoints.gguf.unigram import unigram
from roots_compress.checkpoints.gguf.vocabulary import (
    BYTE,
    CONTROL,
    KEY,
    MERGES,
    SCORES,
    SPACE,
    TOKENS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    add_tokens,
    first_of,
    read_vocabulary,
    within,
)
from roots_compress.checkpoints.gguf.wordpiece import word_tokenizer
from roots_compress.data.special_tokens import open_with_nothing
from roots_compress.errors import did_you_mean

SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
"""transformers' name of a special token, and the key of its id."""
SENTENCEPIECE_DEFAULTS = {"bos_token": 1, "eos_token": 2, "unk_token": 0}
"""llama.cpp's defaults for a file of the kind `llama`."""
T5_DEFAULTS = {"eos_token": 1, "unk_token": 2, "pad_token": 0}
"""Its defaults for the kind `t5`."""
OF_ENCODERS = {"sep_token": "seperator_token_id", "cls_token": "cls_token_id", "mask_token": "mask_token_id"}


def gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a GGUF file.

    Raises:
        InputError: the file has none, or one whose rules are not known here; the message names the key.
    """
    vocabulary = read_vocabulary(path)
    kind = vocabulary.text("model")
    if kind == "bert":
        return word_tokenizer(vocabulary)
    if kind == "gpt2":
        rules = _rules(vocabulary)
        backend, opens = _byte_level(vocabulary, rules), rules.add_bos
        special = {name: vocabulary.token_id(key) for name, key in SPECIAL.items()}
    elif kind == "gemma4":
        # llama.cpp opens texts of this kind with BOS whatever the file says.
        vocabulary = replace(vocabulary, metadata={**vocabulary.metadata, KEY + "add_bos_token": True})
        backend, opens = _merged(vocabulary), True
        special = {name: vocabulary.token_id(key) for name, key in SPECIAL.items()}
    elif kind == "t5":
        vocabulary = replace(vocabulary, metadata={KEY + "add_eos_token": True, **vocabulary.metadata})
        backend, opens = unigram(vocabulary), False
        special = {
            name: first_of(vocabulary.token_id(key), within(T5_DEFAULTS.get(name), vocabulary))
            for name, key in (SPECIAL | OF_ENCODERS).items()
        }
    elif kind == "llama":
        backend, opens = _sentencepiece(vocabulary), True
        special = {
            name: first_of(vocabulary.token_id(key), within(SENTENCEPIECE_DEFAULTS.get(name), vocabulary))
            for name, key in SPECIAL.items()
        }
    else:
        vocabulary.refuse(
            f"{KEY}model is {kind!r}; the kinds 'gpt2', 'llama', 'gemma4', 't5' and 'bert' can be read"
            if kind is not None
            else f"has no {KEY}model, so it holds no tokenizer"
        )
    for name in ("pad_token", "unk_token"):
        if special.get(name) is not None and vocabulary.is_ordinary(special[name]):
            special[name] = None  # A text may spell it: it is read and written as text.
    add_tokens(backend, vocabulary, {index for index in special.values() if index is not None})
    _frame(backend, vocabulary, special, opens)
    names = {name: vocabulary.tokens[index] for name, index in special.items() if index is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)
    template = vocabulary.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = template
    return tokenizer


def _rules(vocabulary: Vocabulary) -> Rules:
    name = vocabulary.text("pre") or "default"
    if name not in RULES:
        vocabulary.refuse(
            f"{KEY}pre is {name!r}, whose rules for cutting text into words are not known here"
            + did_you_mean(name, list(RULES))
        )
    return RULES[name]


def _byte_level(vocabulary: Vocabulary, rules: Rules) -> Tokenizer:
    model = BPE(vocab=vocabulary.ids, merges=_merges(vocabulary), ignore_merges=rules.ignore_merges)
    backend = Tokenizer(model)
    splits = [pre_tokenizers.Split(Regex(split), "isolated") for split in rules.splits]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    backend.decoder = decoders.ByteLevel()
    return backend


def _merged(vocabulary: Vocabulary) -> Tokenizer:
    """Return a tokenizer that merges characters within lines, with bytes for what is no token."""
    model = BPE(vocab=vocabulary.ids, merges=_merges(vocabulary), byte_fallback=True)
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "isolated")
    backend.decoder = _decoder()
    return backend


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return the merges of a file, in their order."""
    ids = vocabulary.ids
    if vocabulary.merges is None:
        vocabulary.refuse(f"has no {MERGES}, by which a tokenizer of its kind joins parts to tokens")
    pairs = []
    for index, merge in enumerate(vocabulary.merges):
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or not {left, right, left + right} <= ids.keys():
            vocabulary.refuse(f"{MERGES}[{index}] is {merge!r:.100}, which joins no two tokens to a third")
        pairs.append((left, right))
    return pairs


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    unknown = first_of(vocabulary.token_id("unknown_token_id"), within(0, vocabulary))
    backend = Tokenizer(
        BPE(
            vocab=vocabulary.ids,
            merges=_merges_by_score(vocabulary),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            byte_fallback=True,
        )
    )
    spaced = vocabulary.flag("add_space_prefix", True)
    replaced = normalizers.Replace(" ", SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replaced]) if spaced else replaced
    backend.decoder = _decoder(*([decoders.Strip(" ", 1, 0)] if spaced else []))
    return backend


def _decoder(*last: decoders.Decoder) -> decoders.Decoder:
    """Return the decoder of tokens that may be bytes; these steps come last."""
    return decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *last])


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return merges that always make the best token first, anywhere in the text.

    Of tokens with equal scores SentencePiece takes the leftmost, which merges cannot express. The longer
    token and the longer left part come first here, which is the same for runs of one character.
    """
    ids, scores = vocabulary.ids, vocabulary.scores
    if scores is None:
        vocabulary.refuse(f"has no {SCORES}, by which a tokenizer of the kind 'llama' joins tokens")
    pairs: list[tuple[float, int, int, str, str]] = []
    for index, token in enumerate(vocabulary.tokens):
        if vocabulary.types[index] in (UNKNOWN, CONTROL, BYTE) or len(token) < 2:
            continue
        if lacking := [character for character in token if character not in ids]:
            if vocabulary.types[index] in (USER_DEFINED, UNUSED):
                continue  # It is found whole, or never; merges do not make it.
            vocabulary.refuse(f"{TOKENS} has {token!r}, but no token for its character {lacking[0]!r}")
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                pairs.append((-scores[index], -len(token), -cut, left, right))
    return [(left, right) for *_, left, right in sorted(pairs)]


def _frame(
    backend: Tokenizer, vocabulary: Vocabulary, special: Mapping[str, int | None], opens: bool
) -> None:
    """Let the tokenizer put BOS and EOS around a text if the file or its kind says so."""
    single, tokens = ["$A"], []
    for name, key, default in (("bos_token", "add_bos_token", opens), ("eos_token", "add_eos_token", False)):
        if not vocabulary.flag(key, default):
            continue
        index = special[name]
        if index is None:
            if KEY + key not in vocabulary.metadata:
                continue
            vocabulary.refuse(f"{KEY + key} is true, but {KEY + SPECIAL[name]} names no token")
        # A template refers to a token by a name of its own, since a spelling may hold what templates parse.
        single = [name, *single] if name == "bos_token" else [*single, name]
        tokens.append({"id": name, "ids": [index], "tokens": [vocabulary.tokens[index]]})
    if tokens:
        pair = [*single, *(f"{part}:1" if part != "$A" else "$B:1" for part in single)]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=tokens
        )
    open_with_nothing(backend)
