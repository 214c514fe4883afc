"""What opens and ends a text: decided by the tokenizer itself, in one place, and never put twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from roots_compress.data.documents import Document
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.packing import pack
from roots_compress.data.special_tokens import (
    as_setting,
    closing_ids,
    missing_ending,
    open_with_bos,
    opened,
    opening_id,
    opening_ids,
    stop_ids,
)
from roots_compress.data.tokenizers import tokenizer_sha256


def ids_of(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_the_post_processor_decides_not_the_bos_token(
    tokenizer: PreTrainedTokenizerFast, bare_tokenizer: PreTrainedTokenizerFast
) -> None:
    bare_tokenizer.bos_token = tokenizer.bos_token
    assert opening_ids(tokenizer) == [tokenizer.bos_token_id]
    assert (opening_ids(bare_tokenizer), opening_id(bare_tokenizer)) == ([], None)


@pytest.mark.parametrize(
    ("processor", "before", "after"),
    [
        (processors.BertProcessing(("<|eos|>", 1), ("<|bos|>", 0)), [0], [1]),
        (processors.RobertaProcessing(("<|eos|>", 1), ("<|bos|>", 0)), [0], [1]),
        (processors.TemplateProcessing("$A <|eos|>", "$A $B", [("<|eos|>", 1)]), [], [1]),
        (processors.ByteLevel(trim_offsets=False), [], []),
    ],
)
def test_every_kind_of_post_processor_is_read(
    bare_tokenizer: PreTrainedTokenizerFast,
    processor: processors.PostProcessor,
    before: list[int],
    after: list[int],
) -> None:
    bare_tokenizer.backend_tokenizer.post_processor = processor
    bare_tokenizer.backend_tokenizer.enable_padding(length=8, direction="left")
    assert (opening_ids(bare_tokenizer), closing_ids(bare_tokenizer)) == (before, after)


@pytest.mark.parametrize("text", ["fox", "<|bos|>fox", ""])
def test_a_text_has_one_bos_whether_it_spells_it_or_not(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = opened(ids_of(text, tokenizer), tokenizer)
    assert ids == [tokenizer.bos_token_id, *ids_of(text.removeprefix("<|bos|>"), tokenizer)]


def test_all_readers_of_a_text_that_spells_its_bos_see_one(tokenizer: PreTrainedTokenizerFast) -> None:
    right = [tokenizer.bos_token_id, *ids_of("The fox jumps over", tokenizer)]
    document = Document.plain("<|bos|>The fox jumps over")
    packed = pack([document], tokenizer, len(right), seed=0).input_ids[0].tolist()
    window = evaluation_windows([document], tokenizer, block_size=len(right), limit=1).input_ids[0].tolist()
    assert packed == window == right


def test_windows_open_with_the_token_before_where_the_tokenizer_adds_no_bos(
    bare_tokenizer: PreTrainedTokenizerFast,
) -> None:
    bare_tokenizer.bos_token = "<|bos|>"
    text = "The quick brown fox"
    windows = evaluation_windows([Document.plain(text)], bare_tokenizer, block_size=4, limit=1)
    assert not windows.bos
    assert windows.input_ids[0].tolist() == ids_of(text, bare_tokenizer)[:4]


def test_a_document_ends_with_one_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    end = tokenizer.eos_token_id
    assert missing_ending(np.array([5]), tokenizer) == [end]
    assert missing_ending([], tokenizer) == [end]
    assert missing_ending([5, end], tokenizer) == []


def test_the_bos_added_is_part_of_a_tokenizers_identity(tokenizer: PreTrainedTokenizerFast) -> None:
    without = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|bos|>", eos_token="<|eos|>"
    )
    without.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    assert tokenizer_sha256(without) != tokenizer_sha256(tokenizer)
    open_with_bos(without)
    assert tokenizer_sha256(without) == tokenizer_sha256(tokenizer)


def test_transformers_opens_texts_alike_after_saving(
    bare_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bare_tokenizer.bos_token = "<|bos|>"
    open_with_bos(bare_tokenizer)
    open_with_bos(bare_tokenizer)  # Once is enough.
    bare_tokenizer.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("fox")["input_ids"] == opened(ids_of("fox", bare_tokenizer), bare_tokenizer)


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        ([1, 7, 1], 2, 3, (1, 7)),
        (7, [1, 2], 3, (7,)),
        (None, [1, 2], 3, (1, 2)),
        ([], None, 3, (3,)),
        (0, 2, 3, (0,)),
        (None, None, None, ()),
    ],
)
def test_the_first_that_names_a_stop_id_decides(
    generation: int | list[int] | None,
    config: int | list[int] | None,
    tokenizer: int | None,
    expected: tuple[int, ...],
) -> None:
    assert stop_ids(generation, config, tokenizer) == expected


def test_one_stop_id_is_written_by_itself() -> None:
    assert (as_setting((3,)), as_setting((3, 4)), as_setting(())) == (3, [3, 4], None)
