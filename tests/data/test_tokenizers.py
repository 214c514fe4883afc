"""Byte-level BPE: lossless, reproducible, and the same after saving and loading."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from roots_compress.configs.data import TokenizerConfig
from roots_compress.data import tokenizers
from roots_compress.data.documents import Document
from roots_compress.data.tokenizers import tokenizer_sha256, train_tokenizer
from roots_compress.errors import InputError
from tests.tiny import TEXT

Documents = tuple[Document, ...]
# ASCII with controls, Latin, Cyrillic, Hebrew, Devanagari, combining marks, general punctuation and exotic
# spaces, CJK, private use, emoji, and the last plane.
RANGES = (
    (0x00, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x590, 0x5FF), (0x900, 0x97F),
    (0x2000, 0x206F), (0x4E00, 0x9FFF), (0xE000, 0xE0FF), (0x1F300, 0x1FAFF), (0x10FF00, 0x10FFFF),
)  # fmt: skip


def random_strings(count: int) -> list[str]:
    rng = random.Random(0)
    return [
        "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.randint(1, 12)))
        for _ in range(count)
    ]


def test_ten_thousand_strings_keep_their_ids_and_text_after_saving(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    strings = random_strings(10_000)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    ids = tokenizer(strings, add_special_tokens=False)["input_ids"]
    assert loaded(strings, add_special_tokens=False)["input_ids"] == ids
    assert loaded.batch_decode(ids) == strings
    assert tokenizer_sha256(loaded) == tokenizer_sha256(tokenizer)


def test_encoding_opens_a_text_with_bos_and_adds_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    first, *text = tokenizer("fox")["input_ids"]
    assert first == tokenizer.bos_token_id
    assert text == tokenizer("fox", add_special_tokens=False)["input_ids"]
    assert not set(text) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("kind", ["byte_bpe", "wordpiece", "unigram", "word"])
def test_every_kind_is_trained_for_an_encoder_and_the_same_again(documents: Documents, kind: str) -> None:
    config = TokenizerConfig.model_validate(
        {"kind": kind, "vocab_size": 320, "lowercase": True, "bos_token": "<s>", "mask_token": "<hidden>"}
    )
    trained = train_tokenizer(documents, config, encoder=True)
    pair = trained("The quick fox", "and a dog")
    assert (trained.cls_token, trained.mask_token, trained.bos_token) == ("<s>", "<hidden>", "<s>")
    assert pair["input_ids"].count(trained.sep_token_id) == 2
    assert set(pair["token_type_ids"]) == {0, 1}
    assert trained("QUICK fox")["input_ids"] == trained("quick FOX")["input_ids"]
    read = trained.decode(trained("quick fox")["input_ids"], skip_special_tokens=True)
    assert str(read).split() == ["quick", "fox"]
    again = train_tokenizer(documents, config, encoder=True)
    assert tokenizer_sha256(again) == tokenizer_sha256(trained)


def test_unigram_takes_short_lines_and_refuses_text_without_any() -> None:
    config = TokenizerConfig(kind="unigram", vocab_size=16)
    trained = train_tokenizer([Document.plain("abc\nabd\nabe")], config)
    assert trained.decode(trained("abd", add_special_tokens=False)["input_ids"]) == "abd"
    with pytest.raises(InputError, match="no Unigram vocabulary can be trained on this text"):
        train_tokenizer([Document.plain(" \n")], config)


def test_byte_level_training_reads_one_document_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pieces = tokenizers._pieces

    def documents() -> Iterator[Document]:
        for number in range(500):
            read.append(number)
            yield Document.plain(f"{TEXT} {number}")

    def watched(text: str) -> Iterator[str]:
        assert text.endswith(f" {read[-1]}"), "documents wait in memory"
        return pieces(text)

    monkeypatch.setattr(tokenizers, "_pieces", watched)
    train_tokenizer(documents(), TokenizerConfig(vocab_size=300))
    assert len(read) == 500


def test_words_that_are_seen_less_often_are_unknown() -> None:
    texts = [Document.plain("one two two three three three")]
    trained = train_tokenizer(texts, TokenizerConfig(kind="word", vocab_size=16, min_frequency=2))
    assert {"two", "three"} < trained.get_vocab().keys()
    assert trained.convert_ids_to_tokens(trained("one two")["input_ids"]) == ["<|bos|>", "<|unk|>", "two"]


def test_training_again_gives_the_same_tokenizer(
    tokenizer: PreTrainedTokenizerFast, documents: Documents
) -> None:
    again = train_tokenizer(documents, TokenizerConfig(vocab_size=300))
    assert tokenizer_sha256(again) == tokenizer_sha256(tokenizer)


def test_vocabulary_has_the_size_and_special_tokens_asked_for(documents: Documents) -> None:
    tokenizer = train_tokenizer(documents, TokenizerConfig(vocab_size=280, special_tokens=("<|tool|>",)))
    assert len(tokenizer) == 280
    assert len(tokenizer("<|tool|>", add_special_tokens=False)["input_ids"]) == 1


def test_rare_pairs_are_not_merged(documents: Documents) -> None:
    tokenizer = train_tokenizer(documents, TokenizerConfig(vocab_size=1000, min_frequency=10_000))
    assert len(tokenizer) == 256 + 3


@pytest.mark.parametrize("extra", [("<|bos|>",), ("a", "a"), ("",)])
def test_repeated_or_empty_special_tokens_are_refused(documents: Documents, extra: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="special tokens"):
        train_tokenizer(documents, TokenizerConfig(special_tokens=extra))


def test_too_small_a_vocabulary_names_the_smallest_possible(documents: Documents) -> None:
    with pytest.raises(InputError, match="261 or more"):
        train_tokenizer(documents, TokenizerConfig(vocab_size=260, special_tokens=("a1", "a2")))


def test_fingerprint_ignores_padding_and_truncation(tokenizer: PreTrainedTokenizerFast) -> None:
    used = copy.deepcopy(tokenizer)
    used(["a fox", "fox"], padding=True, truncation=True, max_length=2)
    assert tokenizer_sha256(used) == tokenizer_sha256(tokenizer)


def test_fingerprint_tells_merges_and_specials_apart(
    tokenizer: PreTrainedTokenizerFast, bare_tokenizer: PreTrainedTokenizerFast, documents: Documents
) -> None:
    other = train_tokenizer(documents[:3], TokenizerConfig(vocab_size=300))
    assert len({tokenizer_sha256(each) for each in (tokenizer, bare_tokenizer, other)}) == 3
