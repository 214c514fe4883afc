"""Labels of words from lists of words to a report, with a tiny BERT and by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from roots_compress.data.documents import SOURCE, Document, Span, Tags
from roots_compress.data.packing import BLOCK_SIZE
from roots_compress.data.pairs import sides
from roots_compress.data.special_tokens import closing_ids, opening_ids
from roots_compress.data.tagged import framed_words
from roots_compress.data.texts import framed_texts
from roots_compress.tasks.token_classification import entities, entity_f1
from tests.encoders import encoder_tokenizer, save_bert
from tests.runtime.tokenizer_kinds import byte_fallback, metaspace, word_piece
from tests.tasks.commands import PRUNE, QUANTIZE, carry_out, metrics_of, recipe, roots, training

NAMES = ("O", "B-PER", "I-PER", "B-LOC")
TRAINING = {"steps": 4, "batch_size": 2, "block_size": 32}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return sentences whose persons and places are the words after two that tell them."""
    draw = np.random.default_rng(0)
    lines = []
    for number in range(240):
        words, tags = ["the", "quick"], list[int | str]([0, 0])
        if number % 2:
            words, tags = [*words, "fox", "brown", "dog"], [*tags, "O", "B-PER", "I-PER"]
        if number % 3:
            words, tags = [*words, "over", "lazy"], [*tags, 0, 3]
        words, tags = [*words, str(draw.integers(100))], [*tags, 0]
        lines.append(json.dumps({"tokens": words, "ner_tags": tags}))
    path = tmp_path_factory.mktemp("records") / "words.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_word_s_label_is_at_its_first_token() -> None:
    tokenizer = encoder_tokenizer()
    spans = (Span("unbelievable", True), Span(" ", False), Span("Éa", True))
    document = Document(spans, tags=Tags((3, 1), NAMES))
    (row,) = framed_words([document], tokenizer, 40, key=BLOCK_SIZE)
    pieces = [len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
              for text in ("unbelievable", " Éa")]  # fmt: skip
    assert row.ids[:1] + row.ids[-1:] == [0, 1]
    assert len(row.ids) == sum(pieces) + 2
    assert {place: target for place, target in enumerate(row.targets) if target != -100} == {
        1: 3, 1 + pieces[0]: 1,  # The space before the word is a token of its own.
    }  # fmt: skip
    (cut,) = framed_words([document], tokenizer, pieces[0] + 1, key=BLOCK_SIZE)
    assert [target for target in cut.targets if target != -100] == [3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_is_cut_on_the_side_that_the_tokenizer_says(side: str) -> None:
    tokenizer = encoder_tokenizer()
    tokenizer.truncation_side = side
    text, last = "The quick brown fox jumps over the lazy", " dog"
    expected = tokenizer(text + last, truncation=True, max_length=9)["input_ids"]
    assert framed_texts([text + last], tokenizer, 9, key=BLOCK_SIZE) == [expected]
    (found,) = sides([text + last], tokenizer, 9, name=SOURCE, key=BLOCK_SIZE)
    assert found.ids == expected
    assert found.text_bytes == len(tokenizer.decode(expected, skip_special_tokens=True))
    spans = (Span(text, True), Span(" ", False), Span(last[1:], True))
    (row,) = framed_words([Document(spans, tags=Tags((3, 1), NAMES))], tokenizer, 9, key=BLOCK_SIZE)
    assert row.ids == expected
    assert (1 in row.targets) == (side == "left")


@pytest.mark.parametrize("kind", [metaspace, byte_fallback, word_piece])
def test_words_begin_where_they_do_for_transformers(kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer, words = kind(), ["do", "日本", "fox", "n't", "a", "éa", "."]
    spans = [span for word in words for span in (Span(" ", False), Span(word, True))]
    document = Document(tuple(spans[1:]), tags=Tags(tuple(range(len(words))), tuple(map(str, words))))
    (row,) = framed_words([document], tokenizer, 60, key=BLOCK_SIZE)
    theirs = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    of_tokens = theirs.word_ids()
    first = [-100 if word == before else word for before, word in pairwise([None, *of_tokens])]
    opening, closing = opening_ids(tokenizer), closing_ids(tokenizer)
    assert row.ids == [*opening, *theirs.input_ids, *closing]
    assert row.targets == [-100] * len(opening) + first + [-100] * len(closing)


def test_entities_are_those_of_conll() -> None:
    labels = ["B-PER", "I-PER", "I-LOC", "O", "B-PER", "S-PER", "S-LOC", "I-LOC"]
    texts = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    assert list(entities(labels, texts)) == [
        (0, 2, "PER"), (2, 3, "LOC"), (4, 5, "PER"), (5, 6, "PER"), (6, 7, "LOC"), (7, 8, "LOC"),
    ]  # fmt: skip
    right, texts = np.array([1, 2, 0, 3, 0]), np.zeros(5, np.int64)
    # One of the two is found, one is cut short, and one is no entity: 2 * 1 / (3 + 2).
    assert entity_f1(np.array([1, 0, 1, 3, 0]), right, texts, NAMES) == pytest.approx(0.4)
    assert entity_f1(texts, texts, texts, NAMES) == 1


def test_an_encoder_gets_a_head_for_words_and_goes_through_the_whole_chain(
    records: Path, tmp_path: Path
) -> None:
    save_bert(tmp_path / "masked", BertForMaskedLM, num_hidden_layers=4)
    run = tmp_path / "run"
    document = recipe(
        tmp_path / "masked",
        records,
        {"kind": "tune", "training": training(60, block_size=64, learning_rate=0.006)},
        {"kind": "distill", "student": "small", "training": TRAINING},
        {**PRUNE, "head_ratio": 0.5, "layer_ratio": 0.5, "multiple_of": 8},
        QUANTIZE,
        windows=8,
        data={"train": [str(records)], "records": "tags", "labels": NAMES, "eval_fraction": 0.2},
        gates={"min_word_accuracy": 0.0, "min_entity_f1": 0.0},
    )
    carry_out(document, run)
    rows = metrics_of(run)["stages"]
    assert [row["kind"] for row in rows] == ["baseline", "tune", "distill", "prune", "quantize"]
    assert rows[0]["entity_f1"] < 0.5
    assert rows[1]["entity_f1"] > 0.9
    assert rows[-1]["bytes"] < rows[-2]["bytes"] < rows[1]["bytes"]
    assert "entity F1" in roots("report", run)
    wrong = tmp_path / "wrong.jsonl"
    for line, said in (
        ({"tokens": ["a", "b"], "ner_tags": [0]}, "'tokens' has 2 entries, and 'ner_tags' 1"),
        ({"tokens": ["a"], "ner_tags": ["B-ORG"]}, "'ner_tags' is 'B-ORG', which is no label of the model"),
        ({"tokens": "a b", "ner_tags": [0, 0]}, "'tokens' is str, not a list"),
    ):
        wrong.write_text(json.dumps(line))
        assert said in roots("eval", run / "01-tune", "--eval-data", wrong, "--block-size", "32", code=2)
