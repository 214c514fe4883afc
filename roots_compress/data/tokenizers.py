"""Tokenizers: training one of each kind, and telling whether two are the same."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from roots_compress.configs.data import TokenizerConfig
from roots_compress.data.chat.rendering import rendered
from roots_compress.data.documents import Document
from roots_compress.data.languages import target_tokenizer
from roots_compress.data.pieces import cut_places
from roots_compress.data.special_tokens import open_with_bos, opening_id
from roots_compress.errors import InputError, Key
from roots_compress.system.background import interruptible


class Names(NamedTuple):
    """The special tokens of a tokenizer, in the order of their ids; None where it has none."""

    bos: str
    eos: str
    pad: str
    mask: str | None
    unk: str | None

    @classmethod
    def of(cls, config: TokenizerConfig, *, encoder: bool) -> Names:
        """Return the names that settings give, and those that are usual for the rest."""
        bert = config.kind == "wordpiece"
        usual = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]") if bert else USUAL
        given = (config.bos_token, config.eos_token, config.pad_token, config.mask_token, config.unk_token)
        bos, eos, pad, mask, unk = (name or own for name, own in zip(given, usual, strict=True))
        return cls(
            bos,
            eos,
            pad,
            mask if encoder or config.mask_token else None,
            None if config.kind == "byte_bpe" else unk,
        )


USUAL = ("<|bos|>", "<|eos|>", "<|pad|>", "<|mask|>", "<|unk|>")
BOS, EOS, PAD = USUAL[:3]
SHORTEST_LIMIT = 10
"""Bytes: sentencepiece takes no lower limit of a line's length."""


def train_tokenizer(
    documents: Iterable[Document], config: TokenizerConfig, *, encoder: bool = False
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on documents.

    Byte-level BPE (Sennrich et al. 2016, over bytes as in GPT-2) gives back any text unchanged; WordPiece
    (Schuster and Nakajima 2012, as BERT's), Unigram (Kudo 2018) and whole words do not. The tokenizer opens
    each text with BOS; an encoder's ends it with EOS too, and has a mask token. The same documents in the
    same order give the same tokenizer. A short text may hold too little to fill `config.vocab_size`: the
    vocabulary is then smaller.

    Raises:
        InputError: the special tokens are empty or repeated, or leave no room for the 256 bytes.
    """
    names = Names.of(config, encoder=encoder)
    own = [name for name in names if name is not None]
    special_tokens = [*own, *config.special_tokens]
    if "" in special_tokens or len(set(special_tokens)) < len(special_tokens):
        raise InputError(
            f"special tokens are empty or named twice: {', '.join(map(repr, special_tokens))}",
            where=Key("tokenizer", "special_tokens"),
            remedy=f"Name each once; {', '.join(own[:-1])} and {own[-1]} are there already.",
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if config.kind == "byte_bpe" else []
    _require_room(config, len(alphabet), "bytes", special_tokens)
    # Cut where the pre-tokenizer cuts, a long text gives the same words, and takes less memory at a time.
    texts = (piece for document in rendered(documents) for piece in _pieces(document.text))
    tokenizer = interruptible(lambda: KINDS[config.kind](texts, config, special_tokens, names.unk or ""))
    trained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=names.bos,
        eos_token=names.eos,
        pad_token=names.pad,
        unk_token=names.unk,
        mask_token=names.mask,
        cls_token=names.bos if encoder else None,
        sep_token=names.eos if encoder else None,
        additional_special_tokens=list(config.special_tokens),
        clean_up_tokenization_spaces=False,
    )
    if encoder:
        trained.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        trained.backend_tokenizer.post_processor = TemplateProcessing(
            single=[names.bos, "$A", names.eos],
            pair=[names.bos, "$A", names.eos, "$B:1", f"{names.eos}:1"],
            special_tokens=[(names.bos, trained.bos_token_id), (names.eos, trained.eos_token_id)],
        )
    else:
        open_with_bos(trained)
    return trained


def _require_room(config: TokenizerConfig, count: int, what: str, special_tokens: list[str]) -> None:
    """Refuse a vocabulary without room for what each must have.

    Raises:
        InputError: it has none.
    """
    least = count + len(special_tokens)
    if config.vocab_size < least:
        held = f"{count} {what} and " if count else ""
        raise InputError(
            f"{config.vocab_size} entries cannot hold {held}{len(special_tokens)} special tokens",
            where=Key("tokenizer", "vocab_size"),
            remedy=f"Set it to {least} or more.",
        )


def _byte_bpe(
    texts: Iterable[str], config: TokenizerConfig, special_tokens: list[str], _unk: str
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if config.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wordpiece(
    texts: Iterable[str], config: TokenizerConfig, special_tokens: list[str], unk: str
) -> Tokenizer:
    """Train by merging, and cut words by the longest pieces.

    The trainer numbers pieces within words as it meets them, which is in another order each time. Given as
    special tokens they have their numbers beforehand; the tokenizer that is returned has none of them so.
    """
    normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    normal = [normalizer.normalize_str(text) for text in texts]
    inner = [f"##{each}" for each in sorted({*"".join(normal)}) if not each.isspace()]
    _require_room(config, 2 * len(inner), "characters at and after the beginning of words", special_tokens)
    trained = Tokenizer(models.WordPiece(unk_token=unk))
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[*special_tokens, *inner],
        limit_alphabet=len(inner),
        show_progress=False,
    )
    trained.train_from_iterator(normal, trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=unk))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special_tokens)
    return tokenizer


def _unigram(texts: Iterable[str], config: TokenizerConfig, special_tokens: list[str], unk: str) -> Tokenizer:
    """Train by sentencepiece, whose result is the same each time; the tokenizers library's is not."""
    import sentencepiece

    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if config.lowercase else [])]
    normalizer = normalizers.Sequence(steps)
    lines = [line for text in texts for line in normalizer.normalize_str(text).split("\n") if line.strip()]
    _require_room(config, len({*"".join(lines)}), "characters", special_tokens)
    model = io.BytesIO()
    longest = max((len(line.encode()) for line in lines), default=0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=config.vocab_size - len(special_tokens) + 1,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=max(longest + 1, SHORTEST_LIMIT),
            num_threads=1,
            bos_id=-1,
            eos_id=-1,
            unk_id=0,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"no Unigram vocabulary can be trained on this text: {error}",
            where=Key("tokenizer", "kind"),
            remedy="Give more text, or choose another kind of tokenizer.",
        ) from error
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(found.id_to_piece(number), found.get_score(number)) for number in range(1, len(found))]
    vocabulary = [*((token, 0.0) for token in special_tokens), *pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special_tokens.index(unk)))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special_tokens)
    return tokenizer


def _words(texts: Iterable[str], config: TokenizerConfig, special_tokens: list[str], unk: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=unk))
    if config.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special_tokens,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


KINDS: dict[str, Callable[[Iterable[str], TokenizerConfig, list[str], str], Tokenizer]] = {
    "byte_bpe": _byte_bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
    "word": _words,
}


def _pieces(text: str) -> Iterator[str]:
    for start, end in pairwise(cut_places(text)):
        yield text[start:end]


def tokenizer_sha256(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a fingerprint of everything that decides which ids a text becomes.

    That is the vocabulary, merges, normaliser, pre-tokeniser, added tokens, EOS and the BOS before a text;
    not the padding or truncation last asked for, nor how ids are decoded, which saving may rewrite.
    """
    content: dict[str, Any] = {"bos": opening_id(tokenizer), "eos": tokenizer.eos_token_id}
    for name, each in (("", tokenizer), ("target_", target_tokenizer(tokenizer))):
        if not name or each is not tokenizer:
            serialised = json.loads(each.backend_tokenizer.to_str())
            rules = ("normalizer", "pre_tokenizer", "model", "added_tokens")
            content |= {name + rule: serialised[rule] for rule in rules}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
