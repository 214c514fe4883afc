"""A folder's tokenizer gives the ids that transformers' own class gives, and what is none is refused."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from roots_compress.checkpoints.source import SourceInfo
from roots_compress.checkpoints.tokenizer import load_tokenizer, save_tokenizer
from roots_compress.data.special_tokens import opening_ids
from roots_compress.errors import InputError
from tests.tiny import tiny_config

TEXTS = (
    "Hello, world's 12,345!",
    "  two  spaces\n\n\ttab </s> after",
    "naïve café 日本語 한국어 हिन्दी עברית 🙂",
    "<s>a</s> b",
    "",
)
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level() -> Tokenizer:
    tokens = ["<s>", "</s>", "<|endoftext|>", *BYTES, "12", "ĠĠ"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("1", "2"), ("Ġ", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<|endoftext|>"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁b"]
    model = models.BPE(
        {token: i for i, token in enumerate(tokens)},
        [("▁", "a"), ("▁", "b")],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁a", -3.0), ("b", -3.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, "<s>": 1, "</s>": 2, "a": 3, "world": 4}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def pieces() -> Tokenizer:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "wor": 4, "##ld": 5}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return tokenizer


KINDS = {"bytes": byte_level, "fallback": byte_fallback, "unigram": unigram, "words": words, "pieces": pieces}


def folder(path: Path, tokenizer: Tokenizer, model_type: str, config: dict[str, Any] | None) -> SourceInfo:
    path.mkdir(exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    return described(path, model_type, config)


def described(path: Path, model_type: str, config: dict[str, Any] | None, **ids: int) -> SourceInfo:
    document = {"model_type": model_type, **ids}
    (path / "config.json").write_text(json.dumps(document))
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return SourceInfo(path, "transformers", model_type, 0, document, tiny_config().spec, {})


def without_prefix(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "model_type", "config"),
    [
        ("bytes", "gpt2", None),
        ("bytes", "gpt2", {"model_max_length": 64}),
        ("bytes", "gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
        ("bytes", "llama", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}),
        (
            "bytes",
            "llama",
            {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"},
        ),
        (
            "bytes",
            "qwen2",
            {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|endoftext|>"},
        ),
        ("bytes", "qwen2", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}),
        ("bytes", "qwen3", None),
        ("bytes", "mistral", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}),
        ("fallback", "llama", {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}),
        ("fallback", "llama", {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False}),
        (
            "fallback",
            "llama",
            {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True},
        ),
        ("fallback", "llama", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}),
        ("fallback", "gemma", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}),
        ("bytes", "gpt2", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}),
        ("unigram", "llama", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}),
        ("words", "llama", {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}),
        ("pieces", "gpt2", {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}),
    ],
)
def test_ids_are_those_of_transformers(
    tmp_path: Path, kind: str, model_type: str, config: dict[str, Any] | None
) -> None:
    source = folder(tmp_path / "source", KINDS[kind](), model_type, config)
    ours, theirs = load_tokenizer(source), AutoTokenizer.from_pretrained(source.path)
    around = theirs("x").input_ids, theirs("x", add_special_tokens=False).input_ids
    prefixed = (config or {}).get("add_prefix_space")

    def right(text: str) -> list[int]:
        """Return the ids that tokenizer.json's rules give, with what the class puts around them."""
        if prefixed:
            return list(theirs(text).input_ids)
        at = next(i for i in range(len(around[0])) if around[0][i : i + len(around[1])] == around[1])
        cut = KINDS[kind]() if prefixed is None else without_prefix(KINDS[kind]())
        ids = cut.encode(text, add_special_tokens=False).ids
        return [*around[0][:at], *ids, *around[0][at + len(around[1]) :]]

    save_tokenizer(ours, tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "llama"}')
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS:
        assert ours(text)["input_ids"] == right(text)
        assert again(text)["input_ids"] == right(text)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id) or (
        config is None and theirs.bos_token is None
    )


def sentencepiece_model(**settings: Any) -> bytes:
    model = BytesIO()
    texts = [text for text in TEXTS if text.isascii()] * 4
    SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join(texts).split("\n")),
        model_writer=model,
        vocab_size=50,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


ALBERT_IDS = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "user_defined_symbols": "[CLS],[SEP],[MASK]",
}
T5_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
OLD: list[tuple[str, str, dict[str, Any], dict[str, Any] | None]] = [
    ("bert", "vocab.txt", {}, None),
    ("electra", "vocab.txt", {}, {"do_lower_case": False}),
    ("albert", "spiece.model", ALBERT_IDS, {"do_lower_case": False, "keep_accents": True}),
    ("bert", "vocab.txt", {}, {"strip_accents": False, "tokenize_chinese_chars": False}),
    ("t5", "spiece.model", T5_IDS, {"extra_ids": 3}),
    ("xlm-roberta", "sentencepiece.bpe.model", {}, None),
]


@pytest.mark.parametrize(("model_type", "name", "ids", "config"), OLD, ids=str)
def test_a_folder_without_tokenizer_json_is_read_by_its_class(
    tmp_path: Path, model_type: str, name: str, ids: dict[str, int], config: dict[str, Any] | None
) -> None:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] hello Hello naïve cafe , 日"
    text = words.replace(" ", "\n").encode()
    (tmp_path / name).write_bytes(text if name == "vocab.txt" else sentencepiece_model(**ids))
    source = described(tmp_path, model_type, config)
    ours, theirs = load_tokenizer(source), AutoTokenizer.from_pretrained(tmp_path)
    for sample in TEXTS:
        assert ours(sample)["input_ids"] == theirs(sample)["input_ids"]
    assert len(ours) == len(theirs)
    assert (ours.pad_token_id, ours.mask_token_id) == (theirs.pad_token_id, theirs.mask_token_id)


@pytest.mark.parametrize("config", [{}, {"do_lower_case": False}, {"strip_accents": False}], ids=str)
def test_settings_of_berts_classes_go_before_tokenizer_json(tmp_path: Path, config: dict[str, Any]) -> None:
    tokenizer = pieces()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase="do_lower_case" in config)
    source = folder(tmp_path, tokenizer, "bert", {"tokenizer_class": "BertTokenizer", **config})
    ours, theirs = load_tokenizer(source), AutoTokenizer.from_pretrained(tmp_path)
    for text in ("A World", "\u00e1 world"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


def test_a_stray_file_of_another_class_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(sentencepiece_model())
    source = described(tmp_path, "xlm-roberta", None)
    right = load_tokenizer(source)(TEXTS[0])["input_ids"]
    numbers = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "▁"))}
    (tmp_path / "vocab.json").write_text(json.dumps(numbers))
    assert load_tokenizer(source)(TEXTS[0])["input_ids"] == right


def test_a_class_adds_no_token_that_no_file_has(tmp_path: Path) -> None:
    tokenizer = byte_fallback()
    source = folder(tmp_path / "source", tokenizer, "qwen2", {"eos_token": "</s>"})
    assert len(load_tokenizer(source)) == tokenizer.get_vocab_size()


def test_a_tokenizer_of_two_files_and_a_template_of_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"</s>": 0}')
    with pytest.raises(InputError, match="not of the fast kind"):
        load_tokenizer(described(tmp_path, "marian", None))
    with pytest.raises(InputError, match="chat_template is no text"):
        load_tokenizer(folder(tmp_path, byte_level(), "llama", {"chat_template": 5}))


@pytest.mark.parametrize(
    ("kind", "model_type", "name"),
    [("bytes", "bert", None), ("pieces", "gemma", None), ("unigram", "llama", "XLMRobertaTokenizer")],
)
def test_a_class_that_does_not_fit_changes_no_id(
    tmp_path: Path, kind: str, model_type: str, name: str | None
) -> None:
    tokenizer = KINDS[kind]()
    source = folder(tmp_path, tokenizer, model_type, None if name is None else {"tokenizer_class": name})
    loaded = load_tokenizer(source)
    for text in TEXTS:
        assert (
            loaded.encode(text, add_special_tokens=False)
            == tokenizer.encode(text, add_special_tokens=False).ids
        )
    assert len(loaded) == tokenizer.get_vocab_size()


def test_bos_and_eos_come_from_the_configuration_where_no_file_of_the_tokenizer_has_them(
    tmp_path: Path,
) -> None:
    folder(tmp_path / "source", byte_level(), "llama", None)
    source = described(tmp_path / "source", "llama", None, bos_token_id=0, eos_token_id=1)
    assert (load_tokenizer(source).bos_token, load_tokenizer(source).eos_token) == ("<s>", "</s>")
    source = described(source.path, "llama", {"bos_token": None}, bos_token_id=0, eos_token_id=5)
    assert (load_tokenizer(source).bos_token, load_tokenizer(source).eos_token) == (None, None)


def test_nothing_random_stays_on_and_nothing_is_cut_or_padded(tmp_path: Path) -> None:
    tokenizer = byte_level()
    plain = tokenizer.encode(" " * 40 + "12" * 20).ids
    tokenizer.model.dropout = 0.5
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    for config in ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"tokenizer_class": "GPT2Tokenizer"}):
        loaded = load_tokenizer(folder(tmp_path / "source", tokenizer, "gpt2", config))
        assert loaded.encode(" " * 40 + "12" * 20) == plain
        assert loaded.backend_tokenizer.encode(" " * 40 + "12" * 20).ids == plain


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", None])
def test_a_vocabulary_that_the_class_does_not_read_is_refused(tmp_path: Path, name: str | None) -> None:
    (tmp_path / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate([*BYTES, "he", "<s>"])})
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n")
    config = {"bos_token": "<s>", **({} if name is None else {"tokenizer_class": name})}
    with pytest.raises(InputError) as refused:
        load_tokenizer(described(tmp_path, "llama", config))
    assert "save a tokenizer.json" in str(refused.value)


def test_the_class_that_reads_a_vocabulary_is_taken(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate([*BYTES, "he", "<s>"])})
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n")
    source = described(
        tmp_path, "llama", {"bos_token": "<s>", "eos_token": "<s>", "tokenizer_class": "GPT2Tokenizer"}
    )
    loaded = load_tokenizer(source)
    assert loaded.tokenize("the") == ["t", "he"]
    assert len(loaded) == 258
    assert opening_ids(loaded) == []


def test_a_prefix_that_settings_take_away_is_gone_from_every_kind_of_rule(tmp_path: Path) -> None:
    tokenizer = byte_fallback()
    tokenizer.normalizer = normalizers.Prepend("▁")
    config = {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False}
    ours = load_tokenizer(folder(tmp_path / "prepend", tokenizer, "llama", config))
    assert ours.tokenize("a") == ["a"]
    tokenizer = unigram()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    config = {"tokenizer_class": "T5TokenizerFast", "add_prefix_space": False}
    ours = load_tokenizer(folder(tmp_path / "metaspace", tokenizer, "t5", config))
    assert json.loads(ours.backend_tokenizer.to_str())["pre_tokenizer"]["prepend_scheme"] == "never"


def test_two_tokens_before_a_text_are_refused(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing("<s> </s> $A", None, [("<s>", 0), ("</s>", 1)])
    source = folder(tmp_path, tokenizer, "gpt2", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(InputError, match="puts 2 tokens before a text; at most one is supported"):
        load_tokenizer(source)
