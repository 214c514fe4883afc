"""Tokenizers of every kind of decoder, made by code."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = """The quick brown fox jumps over the lazy dog. Don't stop, it's "fine": we've 3.14 (or 2,718)!
سلام دنیا، می‌رود. 日本語の文字 และ ภาษาไทย हिन्दी עברית Ελληνικά русский 한국어 e\u0301
👩‍🔧 👍🏽 🏴 \u00a0\u2009 5\u00a0km
"""
SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _wrapped(backend: Tokenizer, **settings: bool) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    backend.add_tokens([AddedToken("[tool]", special=False), AddedToken("é+", special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **settings
    )


def byte_level(**settings: bool) -> PreTrainedTokenizerFast:
    """GPT-2's kind: each byte of UTF-8 is a character of an alphabet."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL[:3],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT.splitlines(), trainer)
    return _wrapped(backend, **settings)


def byte_fallback(**settings: bool) -> PreTrainedTokenizerFast:
    """Llama 2's kind: words begin with ▁, one is put before the text, and rare characters are bytes."""
    letters = sorted({char for char in TEXT if char.isascii() and char.isalpha()} | set(".,'\"日本کسا"))
    words = ["▁", *letters, "▁a", "ab", "▁ab", "▁.", "▁,", "▁'", "n't", "▁n't", "▁▁", "日本", "ไท"]
    vocab = {word: index for index, word in enumerate([*SPECIAL[:3], *BYTES, *words])}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "."), ("▁", "▁"), ("日", "本")]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrapped(backend, **settings)


def metaspace(**settings: bool) -> PreTrainedTokenizerFast:
    """T5's and XLNet's kind: Unigram, whose words begin with ▁."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL[:3], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXT.splitlines(), trainer)
    return _wrapped(backend, **settings)


def word_piece(**settings: bool) -> PreTrainedTokenizerFast:
    """BERT's kind: what goes on with a word begins with ##, and spaces before punctuation are cleaned up."""
    words = ["a", "do", "n", "'", "t", "s", "m", "ve", "re", ".", ",", "?", "!", "fox", "日", "é"]
    pieces = [*SPECIAL[:3], *words, *(f"##{word}" for word in words), "n't", "'s", " n't"]
    backend = Tokenizer(
        models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return _wrapped(backend, **{"clean_up_tokenization_spaces": True, **settings})


def word_end(**settings: bool) -> PreTrainedTokenizerFast:
    """GPT-1's kind: the end of a word is marked, and becomes a space unless the text ends there."""
    pieces = [*SPECIAL[:3], *"abcdont'.", *(f"{char}</w>" for char in "abcdont'.")]
    backend = Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return _wrapped(backend, **settings)


def word_level(**settings: bool) -> PreTrainedTokenizerFast:
    """Whole words without a decoder, joined by spaces."""
    pieces = [*SPECIAL[:3], "a", "do", "n't", ".", ",", "'", "re", "fox", "\ufffd", "日本"]
    backend = Tokenizer(
        models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrapped(backend, **settings)


def connectionist(**settings: bool) -> PreTrainedTokenizerFast:
    """Wav2Vec2's kind: what is repeated counts once, and | is a space."""
    pieces = [*SPECIAL[:3], "|", *"abcdont'."]
    backend = Tokenizer(
        models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.CTC(pad_token="<s>", word_delimiter_token="|")
    return _wrapped(backend, **settings)


def rewriting(**settings: bool) -> PreTrainedTokenizerFast:
    """A decoder that rewrites the whole text by a pattern, once all tokens are one string."""
    tokenizer = byte_level(**settings)
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace(Regex("o+"), "0"), decoders.Replace("the", "THE")]
    )
    return tokenizer


KINDS: dict[str, Callable[..., PreTrainedTokenizerFast]] = {
    "byte-level BPE": byte_level,
    "BPE with byte fallback": byte_fallback,
    "Unigram with Metaspace": metaspace,
    "WordPiece": word_piece,
    "BPE with word ends": word_end,
    "words": word_level,
    "CTC": connectionist,
    "rewriting": rewriting,
}
