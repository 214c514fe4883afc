"""Held-out windows: each token and each byte counted once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from roots_compress.data import evaluation
from roots_compress.data.documents import Document
from roots_compress.data.encoding import Piece, encode
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.special_tokens import open_with_bos
from roots_compress.errors import InputError

Documents = tuple[Document, ...]


def stream_of(documents: Documents, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    texts = [document.text + "\n\n" for document in documents[:-1]] + [documents[-1].text]
    return [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_each_token_is_scored_once_after_bos(
    documents: Documents, tokenizer: PreTrainedTokenizerFast
) -> None:
    windows = evaluation_windows(documents, tokenizer, block_size=32, limit=10_000)
    stream = stream_of(documents, tokenizer)
    scored = windows.input_ids[:, 1:].ravel().tolist()
    assert windows.bos
    assert (windows.input_ids[:, 0] == tokenizer.bos_token_id).all()
    assert scored == stream[: len(scored)]
    assert len(stream) - len(scored) < 31
    assert windows.scored_tokens == len(scored)


def test_a_window_that_begins_on_a_spelt_bos_opens_with_that_one(tokenizer: PreTrainedTokenizerFast) -> None:
    bos = tokenizer.bos_token
    text = f"{bos}123456{bos}7890{bos}1"
    windows = evaluation_windows([Document.plain(text)], tokenizer, block_size=4, limit=100)
    opened = [f"{bos}123", f"{bos}456", f"{bos}789", f"{bos}0{bos}1"]
    assert [str(tokenizer.decode(row)) for row in windows.input_ids] == opened
    assert windows.text_bytes == len(f"1234567890{bos}1")


def test_without_bos_a_window_opens_with_the_token_before_it(
    documents: Documents, bare_tokenizer: PreTrainedTokenizerFast
) -> None:
    windows = evaluation_windows(documents, bare_tokenizer, block_size=32, limit=10_000)
    stream = stream_of(documents, bare_tokenizer)
    assert not windows.bos
    assert windows.input_ids[:, 0].tolist() == stream[: 31 * len(windows.input_ids) : 31]
    assert windows.input_ids[:, 1:].ravel().tolist() == stream[1 : 1 + windows.scored_tokens]


@pytest.mark.parametrize("block_size", [2, 3, 32, 257])
def test_the_bytes_of_all_windows_are_those_of_the_text_they_cover(
    documents: Documents, tokenizer: PreTrainedTokenizerFast, block_size: int
) -> None:
    windows = evaluation_windows(documents, tokenizer, block_size=block_size, limit=10_000)
    text = "\n\n".join(document.text for document in documents)
    # A character cut at the end decodes to U+FFFD, and counts whole: with the token that begins it.
    covered = str(tokenizer.decode(windows.input_ids[:, 1:].ravel())).rstrip("\ufffd")
    cut = windows.text_bytes - len(covered.encode())
    assert text.startswith(covered)
    assert cut in (0, len(text[len(covered)].encode()) if len(covered) < len(text) else 0)


def test_windows_of_two_halves_share_no_byte(
    documents: Documents, tokenizer: PreTrainedTokenizerFast
) -> None:
    """With two-token windows every token is a window, so the bytes of all are those of the whole text."""
    windows = evaluation_windows(documents, tokenizer, block_size=2, limit=10_000)
    assert windows.text_bytes == len("\n\n".join(document.text for document in documents).encode())


def test_spaces_trimmed_from_offsets_are_counted(
    documents: Documents, tokenizer: PreTrainedTokenizerFast
) -> None:
    trimming = copy.deepcopy(tokenizer)
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    open_with_bos(trimming)
    plain, trimmed = (
        evaluation_windows(documents, each, block_size=2, limit=10_000) for each in (tokenizer, trimming)
    )
    assert trimmed.text_bytes == plain.text_bytes


def test_bytes_are_those_of_the_text_where_the_tokenizer_loses_some() -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0, "fox": 1, "[BOS]": 2}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="[BOS]")
    open_with_bos(tokenizer)
    text = "Ein FOX  and a füchschen  "
    windows = evaluation_windows([Document.plain(text)], tokenizer, block_size=6, limit=1)
    assert windows.text_bytes == len(text.encode())


def test_a_limit_takes_windows_from_the_whole_text(tokenizer: PreTrainedTokenizerFast) -> None:
    documents = [Document.plain("fox " * 300), Document.plain("dog " * 300), Document.plain("bee " * 300)]
    windows = evaluation_windows(documents, tokenizer, block_size=16, limit=6)
    assert len(windows.input_ids) == 6
    assert {word for row in windows.input_ids for word in str(tokenizer.decode(row[4:])).split()} >= {
        "fox",
        "dog",
        "bee",
    }


def test_no_more_of_a_training_text_is_read_than_its_windows_need(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document.plain(f"fox {number} " * 20) for number in range(1000)]
    read: list[str] = []

    def counted(texts: Iterable[str], *arguments: Any, **settings: Any) -> Iterator[Piece]:
        read.extend(texts := list(texts))
        return encode(texts, *arguments, **settings)

    monkeypatch.setattr(evaluation, "encode", counted)
    found = evaluation_windows(documents, tokenizer, block_size=64, limit=5, part="train")
    assert found.input_ids.shape == (5, 64)
    assert len(read) < 50
    assert int(read[-1].split()[1]) > 900, "the documents are from the whole text"
    blank = [Document.plain(" " * 5000 + "fox")] * 20
    wanted = evaluation_windows(blank, tokenizer, block_size=64, limit=10**6, part="eval")
    few = evaluation_windows(blank, tokenizer, block_size=64, limit=len(wanted.input_ids), part="train")
    assert len(few.input_ids) == len(wanted.input_ids), "more is read where tokens are long"


def test_the_same_text_gives_the_same_windows(
    documents: Documents, tokenizer: PreTrainedTokenizerFast
) -> None:
    first, again = (evaluation_windows(documents, tokenizer, block_size=32, limit=7) for _ in range(2))
    assert np.array_equal(first.input_ids, again.input_ids)
    assert (first.text_sha256, first.tokenizer_sha256) == (again.text_sha256, again.tokenizer_sha256)


def test_too_little_text_says_how_much_there_is_and_what_would_do(tokenizer: PreTrainedTokenizerFast) -> None:
    document = Document.plain("1234567")
    with pytest.raises(InputError, match="7 tokens, fewer than one window of 64") as caught:
        evaluation_windows([document], tokenizer, block_size=64, limit=1)
    assert "block_size to 8 or less" in str(caught.value)
    assert evaluation_windows([document], tokenizer, block_size=8, limit=1).scored_tokens == 7
