"""A dozen kinds of tokenizer, trained in the test and written as their users have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.compare.rules import LLAMA3, QWEN2
from tests.compare.texts import TEXTS

VOCAB_SIZE = 640


@dataclass(frozen=True)
class Kind:
    """One kind of tokenizer."""

    build: Callable[[], Tokenizer]
    bos: str | None
    eos: str
    unk: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """What its tokenizer_config.json says besides the special tokens."""

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        tokens = {"bos_token": self.bos, "eos_token": self.eos, "unk_token": self.unk}
        named = {name: token for name, token in tokens.items() if token is not None}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=self.build(), **named)
        tokenizer.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        config = {"bos_token": None, **json.loads(path.read_text(encoding="utf-8")), **self.config}
        path.write_text(json.dumps(config), encoding="utf-8")


def _byte_level(
    *pre: Any, special: list[str], normalizer: Any = None, ignore_merges: bool = False, prefix: bool = False
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    # A splitter of the kind's own comes first; the last one only respells bytes.
    respelling = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not pre)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*pre, respelling]) if pre else respelling
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, trainers.BpeTrainer, special=special, initial_alphabet=alphabet)


def _trained(tokenizer: Tokenizer, trainer: Any, *, special: list[str], **settings: Any) -> Tokenizer:
    tokenizer.train_from_iterator(
        [text for text in TEXTS.values() for _ in range(3)],
        trainer(vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False, **settings),
    )
    return tokenizer


def _opened(tokenizer: Tokenizer, bos: str) -> Tokenizer:
    """Have the tokenizer put BOS before every text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def _split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


@cache
def _gpt2() -> Tokenizer:
    return _byte_level(special=["<|endoftext|>"])


@cache
def _llama3() -> Tokenizer:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    return _opened(_byte_level(_split(LLAMA3), special=special, ignore_merges=True), special[0])


@cache
def _qwen2() -> Tokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return _byte_level(_split(QWEN2), special=special, normalizer=normalizers.NFC())


@cache
def _smollm() -> Tokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, trainers.BpeTrainer, special=special, initial_alphabet=alphabet)


@cache
def _byte_level_with_a_space() -> Tokenizer:
    return _byte_level(special=["<s>", "</s>"], prefix=True)


@cache
def _user_defined_tokens() -> Tokenizer:
    """Added tokens with each of the flags that they can have."""
    tokenizer = _byte_level(special=["<|endoftext|>"])
    tokenizer.add_tokens(
        [
            AddedToken("    ", normalized=False),
            AddedToken("print", single_word=True),
            AddedToken("<|left|>", lstrip=True, special=True),
            AddedToken("<|right|>", rstrip=True, special=True),
        ]
    )
    return tokenizer


SPM_SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _sentencepiece(normalizer: Any, decoder: Any, pre: Any = None, extra: tuple[str, ...] = ()) -> Tokenizer:
    """Return a BPE over characters with a token for each byte, as SentencePiece's are converted."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    _trained(tokenizer, trainers.BpeTrainer, special=[*SPM_SPECIAL, *BYTES, *extra], limit_alphabet=120)
    # Trained as special so that they come first; bytes are ordinary tokens of the model.
    content = json.loads(tokenizer.to_str())
    kept = {*SPM_SPECIAL, *extra}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in kept]
    return _opened(Tokenizer.from_str(json.dumps(content)), "<s>")


def _unescaped(strip: bool) -> Any:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


@cache
def _llama2() -> Tokenizer:
    escaped = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _sentencepiece(escaped, _unescaped(strip=True))


@cache
def _metaspace() -> Tokenizer:
    space = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return _sentencepiece(None, _unescaped(strip=True), pre=space)


@cache
def _gemma() -> Tokenizer:
    runs = tuple(" " * count for count in (2, 3, 4))
    return _sentencepiece(normalizers.Replace(" ", "▁"), _unescaped(strip=False), extra=runs)


@cache
def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    return _trained(tokenizer, trainers.UnigramTrainer, special=["<unk>", "<s>", "</s>"], unk_token="<unk>")


@cache
def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer, special=["[UNK]", "[CLS]", "[SEP]"])


@cache
def _wordlevel() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _trained(tokenizer, trainers.WordLevelTrainer, special=["<unk>", "</s>"])


PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast"}
KINDS = {
    "gpt2": Kind(_gpt2, "<|endoftext|>", "<|endoftext|>", config={"tokenizer_class": "GPT2Tokenizer"}),
    "llama3": Kind(_llama3, "<|begin_of_text|>", "<|end_of_text|>", config=PLAIN),
    "qwen2": Kind(_qwen2, None, "<|im_end|>", config={"tokenizer_class": "Qwen2Tokenizer"}),
    "smollm": Kind(_smollm, "<|im_start|>", "<|im_end|>", config={"tokenizer_class": "GPT2Tokenizer"}),
    "leading space": Kind(_byte_level_with_a_space, "<s>", "</s>", config=PLAIN),
    "added tokens": Kind(_user_defined_tokens, None, "<|endoftext|>", config=PLAIN),
    "llama2": Kind(_llama2, "<s>", "</s>", "<unk>", config={"tokenizer_class": "LlamaTokenizer"}),
    "metaspace": Kind(_metaspace, "<s>", "</s>", "<unk>", config=PLAIN),
    "gemma": Kind(_gemma, "<s>", "</s>", "<unk>", config=PLAIN),
    "unigram": Kind(_unigram, "<s>", "</s>", "<unk>", config=PLAIN),
    "wordpiece": Kind(_wordpiece, "[CLS]", "[SEP]", "[UNK]", config=PLAIN),
    "wordlevel": Kind(_wordlevel, None, "</s>", "<unk>", config=PLAIN),
}


def reference(folder: Path) -> PreTrainedTokenizerFast:
    """Return transformers' tokenizer for a folder, by the rules of its tokenizer.json.

    AutoTokenizer would go by the class that the folder names. In transformers 5 some classes, as those of
    GPT-2 and Llama, build rules of their own over the file's vocabulary: digits that the model was trained to
    read one by one come together. The rules in the file are those of the training.
    """
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer
