"""Packing: every token scored once, documents kept apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import Document, Span
from roots_compress.data.packing import pack
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.errors import InputError

Documents = tuple[Document, ...]


def framed_ids(document: Document, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids: list[int] = tokenizer(document.text, add_special_tokens=False)["input_ids"]
    return [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("block_size", [8, 64, 1000])
def test_every_token_but_a_documents_first_is_scored_once(
    documents: Documents, tokenizer: PreTrainedTokenizerFast, block_size: int
) -> None:
    windows = pack(documents, tokenizer, block_size, seed=1)
    scored = Counter(windows.targets[windows.targets != IGNORED_LABEL].tolist())
    expected = Counter(token for document in documents for token in framed_ids(document, tokenizer)[1:])
    assert not scored - expected
    assert (expected - scored).total() < block_size  # The last partial window.


def test_targets_are_the_following_tokens(documents: Documents, tokenizer: PreTrainedTokenizerFast) -> None:
    windows = pack(documents, tokenizer, 64, seed=1)
    kept = windows.targets != IGNORED_LABEL
    assert not kept[:, -1].any()
    assert np.array_equal(windows.targets[kept], np.roll(windows.input_ids, -1, axis=1)[kept])


def test_segments_are_the_documents(documents: Documents, tokenizer: PreTrainedTokenizerFast) -> None:
    """Within a window, each stretch of one segment id is a run of one document's tokens."""
    sources = [framed_ids(document, tokenizer) for document in documents]
    windows = pack(documents, tokenizer, 64, seed=1)
    for ids, segments in zip(windows.input_ids, windows.segment_ids, strict=True):
        assert segments[0] == 0
        assert set(np.diff(segments).tolist()) <= {0, 1}
        assert np.array_equal(
            np.flatnonzero(np.diff(segments)) + 1, np.flatnonzero(ids[1:] == tokenizer.bos_token_id) + 1
        )
        for segment in range(1, segments[-1]):  # Those that lie within the window whole.
            assert ids[segments == segment].tolist() in sources


def test_a_long_document_goes_on_in_the_next_window(tokenizer: PreTrainedTokenizerFast) -> None:
    document = Document.plain("The lazy dog sleeps. " * 60)
    windows = pack([document], tokenizer, 32, seed=0)
    assert (windows.segment_ids == 0).all()
    assert (windows.targets[:, :-1] != IGNORED_LABEL).all()


def test_a_documents_first_token_is_not_scored_without_bos(
    documents: Documents, bare_tokenizer: PreTrainedTokenizerFast
) -> None:
    windows = pack(documents, bare_tokenizer, 64, seed=1)
    opening = np.diff(windows.segment_ids, axis=1) == 1
    assert opening.any()
    assert (windows.targets[:, :-1][opening] == IGNORED_LABEL).all()


def test_prompts_are_read_but_not_scored(tokenizer: PreTrainedTokenizerFast) -> None:
    document = Document((Span("Question? ", False), Span("Answer!", True)))
    ids = framed_ids(document, tokenizer)
    answer = tokenizer("Answer!", add_special_tokens=False)["input_ids"]
    windows = pack([document], tokenizer, len(ids), seed=0)
    assert windows.input_ids[0].tolist() == ids
    targets = windows.targets[0]
    assert targets[targets != IGNORED_LABEL].tolist() == [*answer, tokenizer.eos_token_id]


def test_markers_that_the_text_spells_out_are_not_doubled(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "<|bos|>The lazy dog<|eos|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = pack([Document.plain(text)], tokenizer, len(ids), seed=0)
    assert windows.input_ids.tolist() == [ids]


def test_the_seed_alone_decides_the_order(documents: Documents, tokenizer: PreTrainedTokenizerFast) -> None:
    first, again, other = (pack(documents, tokenizer, 64, seed=seed).input_ids for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[: len(other)], other[: len(first)])


def test_a_limit_bounds_windows_and_draws_on_many_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    numbered = [Document.plain(f"<|bos|>{number} " + "fox " * 200) for number in range(20)]
    windows = pack(numbered, tokenizer, 16, seed=0, limit=5)
    assert windows.input_ids.shape == (5, 16)


def test_a_long_documents_windows_are_not_its_first_ones_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "fox " * 500 + "dog " * 500
    windows = pack([Document.plain(text)], tokenizer, 16, seed=0, limit=8)
    words = {word for window in windows.input_ids for word in str(tokenizer.decode(window)).split()}
    assert {"fox", "dog"} <= words


def test_too_little_text_says_how_much_there_is(tokenizer: PreTrainedTokenizerFast) -> None:
    document = Document.plain("fox " * 9)
    count = len(framed_ids(document, tokenizer))
    with pytest.raises(InputError, match=f"{count} tokens, fewer than one window of 64") as caught:
        pack([document], tokenizer, 64, seed=0)
    assert caught.value.remedy == f"Give more text, or set block_size to {count} or less."


def test_no_window_shorter_than_the_shortest_is_advised(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="5 tokens, fewer than one window of 64") as caught:
        pack([Document.plain("fox")], tokenizer, 64, seed=0)
    assert caught.value.remedy == "Give more text."


def test_no_documents_are_too_little_text(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="0 tokens"):
        pack([], tokenizer, 64, seed=0)
