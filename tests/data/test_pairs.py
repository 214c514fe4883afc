"""Pairs of source and target as models read them."""

from __future__ import annotations

import numpy as np

from roots_compress.data.builtin_pairs import restoration_pairs
from roots_compress.data.documents import SOURCE, TARGET, Document, Span
from roots_compress.data.pair_packing import pack_pairs
from roots_compress.data.pairs import evaluation_pairs
from roots_compress.data.windows import IGNORED_LABEL, START
from tests.tiny import tiny_tokenizer

TEXTS = [(f"a model reads {number}", f"A model reads {number}, and ünïcödé.") for number in range(30)]
PAIRS = [Document((Span(source, False, SOURCE), Span(target, True, TARGET))) for source, target in TEXTS]


def test_every_pair_is_whole_and_sees_its_own_source() -> None:
    tokenizer = tiny_tokenizer()
    windows = pack_pairs(PAIRS, tokenizer, 96, seed=0)
    found = []
    for row in range(len(windows.input_ids)):
        for segment in range(int(windows.segment_ids[row].max())):  # The last fills the window.
            read, said = (
                each[row][windows.segment_ids[row] == segment]
                for each in (windows.input_ids, windows.targets)
            )
            source = windows.source_ids[row][windows.source_segment_ids[row] == segment]
            assert read[0] == START
            assert read[1:].tolist() == said[:-1].tolist()
            assert said[-1] == source[-1] == tokenizer.eos_token_id
            found.append((tokenizer.decode(source[:-1]), tokenizer.decode(said[:-1])))
    assert sorted(found) == sorted(TEXTS)


def test_what_fills_a_window_is_not_scored() -> None:
    windows = pack_pairs(PAIRS, tiny_tokenizer(), 96, seed=0)
    filling = windows.segment_ids == windows.segment_ids.max(axis=1, keepdims=True)
    assert (windows.targets[filling] == IGNORED_LABEL).all()
    assert (windows.targets[~filling] != IGNORED_LABEL).all()
    assert {array.shape for array in windows.arrays().values()} == {(len(windows.input_ids), 96)}


def test_as_many_windows_as_are_asked_for_begin_alike() -> None:
    few, all_of_them = (pack_pairs(PAIRS, tiny_tokenizer(), 96, seed=3, limit=limit) for limit in (2, None))
    assert len(few.input_ids) == 2 < len(all_of_them.input_ids)
    assert np.array_equal(few.input_ids, all_of_them.input_ids[:2])


def test_a_pair_is_judged_by_itself_and_its_bytes_are_the_targets() -> None:
    pairs = evaluation_pairs(PAIRS, tiny_tokenizer(), longest=64, limit=7)
    assert pairs.text_bytes == sum(len(each.encode()) for each in pairs.references)
    assert len(pairs.references) == 7
    assert pairs.decoder_tokens(2)[0, 0] == 2
    assert np.array_equal(pairs.decoder_tokens(2)[0, 1:5], pairs.targets[0, :4])
    cut = evaluation_pairs(PAIRS, tiny_tokenizer(), longest=9, limit=7)
    assert cut.targets.shape[1] == cut.input_ids.shape[1] == 9
    assert 0 < cut.text_bytes < pairs.text_bytes


def test_sentences_of_prose_become_pairs() -> None:
    first = "Return the `Path`, if there\nis one."
    text = f"module x\n\n{first} It may be None.\n\n    x = f(y)\n\n{first}"
    (pair, other) = restoration_pairs([Document.plain(text)])
    assert (pair.named(SOURCE), pair.named(TARGET)) == (
        "return the path if there is one",
        "Return the `Path`, if there is one.",
    )
    assert other.named(TARGET) == "It may be None."
