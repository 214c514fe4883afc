"""A GGUF file's tokenizer gives llama.cpp's ids, whatever its vocabulary holds."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from roots_compress.checkpoints.gguf.splits import RULES
from roots_compress.checkpoints.gguf.tokenizer import gguf_tokenizer
from roots_compress.data.special_tokens import opening_ids
from roots_compress.errors import InputError

BYTES = sorted(ByteLevel.alphabet())
SPM_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def write(path: Path, model: str, tokens: Sequence[str], types: Sequence[int], **metadata: Any) -> Path:
    """Write a GGUF file of a vocabulary alone; `metadata` by keys, or by their last part."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(types))
    adders: dict[type, Any] = {
        bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array
    }  # fmt: skip
    for key, value in metadata.items():
        adders[type(value)](key if "." in key else f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(
    path: Path, new: Sequence[str], merges: list[str], special: dict[str, int], **more: Any
) -> Any:
    """Return the tokenizer of a byte-level vocabulary: the bytes, some tokens, and one more that ends it."""
    tokens = [*BYTES, *new, *special, "zq"]
    types = [NORMAL] * (256 + len(new)) + [*special.values(), NORMAL]
    merges = [*merges, "z q"]  # The writer leaves out a list without entries.
    return gguf_tokenizer(write(path, "gpt2", tokens, types, merges=merges, **more))


def sentencepiece(path: Path, pieces: dict[str, float], **more: Any) -> Any:
    """Return the tokenizer of three special tokens, the bytes, and pieces with their scores."""
    tokens = ["<unk>", "<s>", "</s>", *SPM_BYTES, *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    return gguf_tokenizer(
        write(path, "llama", tokens, types, scores=[0.0] * 259 + list(pieces.values()), **more)
    )


def merged(path: Path, pieces: Sequence[str], merges: list[str], **more: Any) -> Any:
    """Return the tokenizer of a vocabulary whose merges join characters within lines."""
    tokens = ["<bos>", "<eos>", "<turn|>", *SPM_BYTES, *pieces]
    types = [CONTROL, CONTROL, USER_DEFINED, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    return gguf_tokenizer(write(path, "gemma4", tokens, types, merges=merges, bos_token_id=0, **more))


def words(tokenizer: Any, text: str) -> list[str]:
    tokens: list[str] = tokenizer.tokenize(text)
    return tokens


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "12 we'll \n\n1", ["12", " we", "'ll", " \n", "\n", "1"]),
        ("smollm", "12\n\n1 2", ["1", "2", "\n\n", "1", " ", "2"]),
        ("qwen2", "1234 WE'LL !\n\n x", ["1", "2", "3", "4", " WE", "'LL", " !\n\n", " x"]),
        ("llama-bpe", "12345 WE'LL\n\n  x", ["123", "45", " WE", "'LL", "\n\n", " ", " x"]),
        ("deepseek-r1-qwen", "x(y) 22", ["x", "(y", ")", " ", "2", "2"]),
        ("tekken", "helloWorld 12", ["hello", "World", " ", "1", "2"]),
        ("gpt-4o", "helloWorld's 1234", ["hello", "World's", " ", "123", "4"]),
        ("falcon", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
        ("default", "a=b 12345", ["a", "=", "b", " ", "123", "45"]),
        ("deepseek-coder", "ab 12\n", ["ab", " ", "1", "2", "\n"]),
        ("deepseek-llm", "naïve 日本", ["na", "ï", "ve", " ", "日本"]),
        ("deepseek-v3", "1234 日本go", ["123", "4", " ", "日本", "go"]),
        ("superbpe", "a 1234567", ["a ", "1", "234", "567"]),
        ("viking", "hei, 12", ["hei", ",", " ", "1", "2"]),
    ],
)
def test_text_is_cut_as_the_pre_tokenizer_says(
    tmp_path: Path, pre: str, text: str, expected: list[str]
) -> None:
    tokenizer = byte_level(tmp_path / "m.gguf", [], [], {}, pre=pre)
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in pieces] == expected


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_known_rule_keeps_all_of_a_text(tmp_path: Path, name: str) -> None:
    text = "It's 12,345 km — naïve café, 日本語 한국 हिन्दी עברית 🙂\t\n\n  def f(x):\r\n    return x # ok  "
    tokenizer = byte_level(tmp_path / "m.gguf", [], [], {}, pre=name)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_merge_does_not_reach_over_what_the_pre_tokenizer_cuts(tmp_path: Path) -> None:
    vocabulary = (["12", "ĊĊ"], ["1 2", "Ċ Ċ"], {"<|endoftext|>": CONTROL})
    assert words(byte_level(tmp_path / "a.gguf", *vocabulary, pre="smollm"), "\n\n12") == ["ĊĊ", "1", "2"]
    assert words(byte_level(tmp_path / "b.gguf", *vocabulary, pre="gpt-2"), "x 12") == ["x", "Ġ", "12"]


def test_a_word_that_is_a_token_stays_one_where_merges_are_ignored(tmp_path: Path) -> None:
    vocabulary = (["th", "abc"], ["t h"], {"<s>": CONTROL})
    assert words(byte_level(tmp_path / "a.gguf", *vocabulary, pre="llama-bpe"), "abc") == ["abc"]
    assert words(byte_level(tmp_path / "b.gguf", *vocabulary, pre="gpt-2"), "abc") == ["a", "b", "c"]


def test_special_and_user_defined_tokens_keep_number_and_spelling(tmp_path: Path) -> None:
    special = {
        "  ": USER_DEFINED,
        "<｜User｜>": USER_DEFINED,
        "<｜begin▁of▁sentence｜>": CONTROL,
        "[PAD1]": UNUSED,
    }
    tokenizer = byte_level(tmp_path / "m.gguf", ["日"], [], special, pre="gpt-2", bos_token_id=259)
    ids = tokenizer.encode("<｜begin▁of▁sentence｜><｜User｜>  a", add_special_tokens=False)
    assert ids == [259, 258, 257, BYTES.index("a")]
    assert len(tokenizer) == 262
    assert tokenizer.bos_token_id == 259
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<｜User｜>  a"


def test_a_known_spelling_is_special_and_phi_3s_tokens_take_the_space_behind_them(tmp_path: Path) -> None:
    """Whatever type the file gives the spelling, as in llama.cpp."""
    known = byte_level(tmp_path / "known.gguf", [], [], {"<|im_end|>": NORMAL})
    assert words(known, "x<|im_end|>") == ["x", "<|im_end|>"]
    special = {"<|end|>": CONTROL, "<s>": CONTROL}
    phi = byte_level(tmp_path / "phi.gguf", [], [], special, **{"general.name": "Phi-3 mini"})
    ids = phi.encode("<|end|>\n x<s> x", add_special_tokens=False)
    assert phi.convert_ids_to_tokens(ids) == ["<|end|>", "x", "<s>", "Ġ", "x"]


def test_a_token_spelt_like_none_of_the_bytes_does_not_shrink_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "m.gguf", ["日", "ééé"], [], {"<s>": CONTROL})
    assert len(tokenizer) == 260
    assert tokenizer.convert_ids_to_tokens(257) == "ééé"


@pytest.mark.parametrize(
    ("pre", "said", "opens"),
    [
        ("gpt-2", {}, False),
        ("gpt-2", {"add_bos_token": True}, True),
        ("llama-bpe", {}, True),
        ("llama-bpe", {"add_bos_token": False}, False),
        ("tekken", {}, True),
        ("qwen2", {}, False),
    ],
)
def test_bos_is_added_where_the_file_or_its_kind_says_so(
    tmp_path: Path, pre: str, said: dict[str, bool], opens: bool
) -> None:
    tokenizer = byte_level(tmp_path / "m.gguf", [], [], {"<s>": CONTROL}, pre=pre, bos_token_id=256, **said)
    assert opening_ids(tokenizer) == ([256] if opens else [])
    assert tokenizer("a")["input_ids"] == [*([256] if opens else []), BYTES.index("a")]


PIECES = {"▁": -1.0, "a": -2.0, "b": -3.0, "▁a": -4.0, "ab": -5.0, "▁▁": -6.0, "▁ab": -7.0}


@pytest.mark.parametrize(
    ("spaced", "text", "expected"),
    [
        (True, "a", ["▁a"]),
        (True, " a", ["▁", "▁a"]),
        (True, "ab", ["▁ab"]),
        (True, "a</s>a", ["▁a", "</s>", "▁a"]),
        (True, "é", ["▁", "<0xC3>", "<0xA9>"]),
        (False, "a", ["a"]),
        (False, " a", ["▁a"]),
        (False, "   b", ["▁▁", "▁", "b"]),
    ],
)
def test_sentencepiece_joins_by_score_and_spaces_as_the_file_says(
    tmp_path: Path, spaced: bool, text: str, expected: list[str]
) -> None:
    tokenizer = sentencepiece(tmp_path / "m.gguf", PIECES, add_space_prefix=spaced)
    assert words(tokenizer, text) == expected
    if "</s>" not in text:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert opening_ids(tokenizer) == [1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)


def test_equal_scores_are_joined_from_the_left(tmp_path: Path) -> None:
    runs = {"▁" * length: 0.0 for length in range(1, 5)}
    tokenizer = sentencepiece(tmp_path / "m.gguf", runs, add_space_prefix=False)
    assert words(tokenizer, " " * 6) == ["▁▁▁▁", "▁▁"]


@pytest.mark.parametrize(
    ("model", "more", "named"),
    [
        ("gpt2", {"merges": ["z q"], "pre": "kimi-k9"}, "tokenizer.ggml.pre is 'kimi-k9'"),
        ("gpt2", {"pre": "gpt-2"}, "tokenizer.ggml.merges"),
        ("gpt2", {"merges": ["a bcd"]}, "tokenizer.ggml.merges[0]"),
        ("gpt2", {"merges": ["z q"], "add_bos_token": True}, "tokenizer.ggml.bos_token_id"),
        ("llama", {}, "tokenizer.ggml.scores"),
        *[(model, {}, f"tokenizer.ggml.model is '{model}'") for model in ("rwkv", "none", "plamo2")],
    ],
)
def test_what_is_not_known_is_refused_by_its_key(
    tmp_path: Path, model: str, more: dict[str, Any], named: str
) -> None:
    path = write(tmp_path / "m.gguf", model, [*BYTES, "zq"], [NORMAL] * 257, **more)
    with pytest.raises(InputError) as refused:
        gguf_tokenizer(path)
    assert named in str(refused.value)
    assert str(path) in str(refused.value)


def test_two_tokens_of_one_spelling_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "gpt2", [*BYTES, "a"], [NORMAL] * 257, merges=["a b"])
    with pytest.raises(InputError, match="spells tokens"):
        gguf_tokenizer(path)


@pytest.mark.parametrize("key", ["padding_token_id", "unknown_token_id"])
def test_a_piece_of_text_that_is_named_as_padding_stays_text(tmp_path: Path, key: str) -> None:
    tokens = ["!!", "<|e|>"]
    tokenizer = byte_level(
        tmp_path / "m.gguf", tokens[:1], ["! !"], {"<|e|>": CONTROL}, pre="gpt-2", **{key: BYTES.index("!")}
    )
    assert words(tokenizer, "a!!") == ["a", "!!"]
    ids = tokenizer.encode("a! b!!", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a! b!!"


def test_a_user_defined_token_needs_no_tokens_for_its_characters(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *SPM_BYTES, "▁", "a", "\n\n"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, NORMAL, NORMAL, USER_DEFINED]
    tokenizer = gguf_tokenizer(write(tmp_path / "m.gguf", "llama", tokens, types, scores=[0.0] * len(tokens)))
    assert words(tokenizer, "a\n\n\n") == ["▁", "a", "\n\n", "▁", "<0x0A>"]


@pytest.mark.parametrize("spelling", ["$bos", "<s:1>", "a:b:c"])
def test_a_bos_may_be_spelt_as_templates_are(tmp_path: Path, spelling: str) -> None:
    tokenizer = byte_level(
        tmp_path / "m.gguf",
        [],
        [],
        {spelling: CONTROL},
        pre="gpt-2",
        bos_token_id=256,
        add_bos_token=True,
    )
    assert opening_ids(tokenizer) == [256]
    assert tokenizer("a").input_ids[0] == 256


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("token_type", ["a"] * 257),
        ("token_type", [float("nan")] * 257),
        ("token_type", [NORMAL] * 256),
        ("scores", ["a"] * 257),
        ("scores", [0.0] * 256),
        ("merges", [1, 2]),
        ("tokens", [1, 2]),
        ("tokens", []),
    ],
    ids=str,
)
def test_arrays_that_hold_something_else_are_refused(tmp_path: Path, key: str, values: list[Any]) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tokenizer_model("gpt2")
    arrays = {"tokens": [*BYTES, "zq"], "merges": ["z q"], key: values}
    for name, array in arrays.items():
        if array:
            writer.add_array(f"tokenizer.ggml.{name}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=key):
        gguf_tokenizer(tmp_path / "m.gguf")


LETTERS = ["\u2581", "a", "b", "\n", "ab", "\u2581a", "\u2581ab", "\n\n", "b\n"]
JOINS = ["a b", "\u2581 a", "\u2581a b", "\u2581 ab", "\n \n", "b \n"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab ab", ["<bos>", "ab", "\u2581ab"]),
        ("b a", ["<bos>", "b", "\u2581a"]),
        ("ab\n\n ab", ["<bos>", "ab", "\n\n", "\u2581ab"]),
        ("a\nb", ["<bos>", "a", "\n", "b"]),
        ("b\nb", ["<bos>", "b", "\n", "b"]),
        ("\u00e9a", ["<bos>", "<0xC3>", "<0xA9>", "a"]),
        ("a<turn|>b", ["<bos>", "a", "<turn|>", "b"]),
    ],
)
def test_characters_are_merged_within_lines(text: str, expected: list[str], tmp_path: Path) -> None:
    """The ids are those of llama.cpp (of 2026-11, run by hand), BOS before every text among them."""
    tokenizer = merged(tmp_path / "m.gguf", LETTERS, JOINS, add_bos_token=False)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == expected
    assert tokenizer.decode(ids[1:]) == text


def test_a_piece_needs_a_token_for_each_of_its_characters(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *SPM_BYTES, "▁", "ab"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, NORMAL, NORMAL]
    path = write(tmp_path / "m.gguf", "llama", tokens, types, scores=[0.0] * len(tokens))
    with pytest.raises(InputError, match="has 'ab', but no token for its character 'a'"):
        gguf_tokenizer(path)


def charsmap(letter: str, replaced: str) -> list[int]:
    """Return SentencePiece's table of characters for one letter: a double array, and what it becomes."""
    units, child = [0] * 256, 1 ^ ord(letter)
    units[0], units[child], units[child ^ 1] = 1 << 10, ord(letter) | 1 << 8 | 1 << 10, 1 << 31
    array = struct.pack("<256I", *units)
    return [*struct.pack("<I", len(array)), *array, *replaced.encode(), 0]


def likeliest(path: Path, pieces: dict[str, float], **more: Any) -> Any:
    """Return the tokenizer of special tokens and pieces with their scores, of T5's kind."""
    tokens = ["<pad>", "</s>", "<unk>", *pieces]
    types = [CONTROL, CONTROL, UNKNOWN, *[NORMAL] * len(pieces)]
    settings = {"add_space_prefix": True, "remove_extra_whitespaces": True, **more}
    scores = [0.0] * 3 + list(pieces.values())
    return gguf_tokenizer(write(path, "t5", tokens, types, scores=scores, **settings))


LIKELY = {"\u2581": -2.0, "a": -3.0, "b": -3.0, "\u2581ab": -4.0, "ab": -7.0, "ba": -1.0}


def test_the_likeliest_pieces_are_taken(tmp_path: Path) -> None:
    tokenizer = likeliest(tmp_path / "m.gguf", LIKELY)
    assert tokenizer("  ab   aba ")["input_ids"] == [6, 3, 4, 8, 1]
    assert tokenizer.decode([6, 3, 4, 8]) == "ab aba"
    assert tokenizer("a??b")["input_ids"] == [3, 4, 2, 5, 1]
    assert tokenizer("ab</s>ab", add_special_tokens=False)["input_ids"] == [6, 1, 6]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (1, 0, 2)
    plain = likeliest(tmp_path / "n.gguf", LIKELY, add_space_prefix=False, remove_extra_whitespaces=False)
    assert plain("ab  ab")["input_ids"] == [4, 5, 3, 6, 1]
    framed = likeliest(tmp_path / "o.gguf", LIKELY, bos_token_id=0, add_bos_token=True, add_eos_token=False)
    assert framed("ab")["input_ids"] == [0, 6]


def test_characters_change_by_the_files_table(tmp_path: Path) -> None:
    tokenizer = likeliest(tmp_path / "m.gguf", LIKELY, precompiled_charsmap=charsmap("X", "ba"))
    assert tokenizer("aX")["input_ids"] == [3, 4, 8, 1]


SOUND = charsmap("X", "ba")
DAMAGED: dict[str, list[int]] = {
    "cut off": SOUND[:600],
    "of no size": [0, 0, 0, 0, 65, 0],
    "of half a unit": [3, 0, 0, 0, 1, 2, 3, 65, 0],
    "short": [8, 0, 0, 0, *SOUND[4:12], 65, 0],
    "leads out": [*SOUND[:4], 255, 255, 255, 127, *SOUND[8:]],
    "text beyond the last": charsmap("X", "b")[:-2],
    "begins within a character": [*SOUND[:-3], 0x80, 0x80, 0],
}


@pytest.mark.parametrize("table", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_table_of_characters_is_refused(tmp_path: Path, table: list[int]) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.precompiled_charsmap is no table"):
        likeliest(tmp_path / "m.gguf", LIKELY, precompiled_charsmap=table)


def test_a_table_of_numbers_that_are_no_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds what is no byte"):
        likeliest(tmp_path / "m.gguf", LIKELY, precompiled_charsmap=[300, 2, 3])


def test_a_vocabulary_without_scores_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "t5", ["<pad>", "</s>", "<unk>"], [CONTROL, CONTROL, UNKNOWN])
    with pytest.raises(InputError, match=r"has no tokenizer\.ggml\.scores"):
        gguf_tokenizer(path)
