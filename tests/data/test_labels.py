"""Labelled records: how labels may be given, what is refused and where, and how windows are packed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_held_out, load_text
from roots_compress.data.documents import Document
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.labelled import labelled_texts, pack_labelled
from roots_compress.data.sources.labels import Labels
from roots_compress.data.sources.readers import read_documents
from roots_compress.data.sources.records import Fields
from roots_compress.data.sources.scores import KNOWN as SCORES
from roots_compress.data.sources.scores import Ratings
from roots_compress.data.sources.tags import KNOWN, TaggedWords
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.errors import InputError
from tests.encoders import encoder_tokenizer
from tests.tiny import tiny_tokenizer

MOODS = ("bad", "good")
STARS = ("1", "2", "3")


def read(path: Path, names: tuple[str, ...] = MOODS) -> list[tuple[str, int | None]]:
    return [(each.text, each.label) for each in read_documents(path, Labels("text", "label", names))]


def test_names_and_numbers_in_every_format(tmp_path: Path) -> None:
    right = [("a", 1), ("b", 0), ("c", 1), ("d", 0)]
    texts = dict(right)
    given: dict[str, Any] = {"a": "good", "b": "bad", "c": 1, "d": 0}
    lines = [json.dumps({"label": given[text], "other": 3, "text": text}) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.json").write_text(f"[{','.join(lines)}]")
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{text},{given[text]}\n" for text in texts))
    pq.write_table(pa.table({"text": [*texts], "label": [*texts.values()]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        assert read(tmp_path / name) == right


def test_where_names_are_numbers_a_number_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,1\ny,3\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": 1}\n{"text": "y", "label": "3"}')
    assert read(tmp_path / "a.csv", STARS) == read(tmp_path / "a.jsonl", STARS) == [("x", 0), ("y", 2)]
    (tmp_path / "b.jsonl").write_text('{"text": "x", "label": 0}')
    with pytest.raises(InputError, match="'label' is 0, which is no label of the model"):
        read(tmp_path / "b.jsonl", STARS)


@pytest.mark.parametrize("form", ["a.csv", "a.jsonl"])
def test_whole_numbers_that_pandas_wrote_as_fractions_are_labels(form: str, tmp_path: Path) -> None:
    """As it does where a row of the table that the rows are from has no label."""
    path = tmp_path / form
    rows = [("x", 1.0), ("y", 0.0)]
    lines = {
        "a.csv": ["text,label", *(f"{text},{label}" for text, label in rows)],
        "a.jsonl": [json.dumps({"text": text, "label": label}) for text, label in rows],
    }
    path.write_text("\n".join(lines[form]))
    assert read(path) == [("x", 1), ("y", 0)]


def test_true_and_false_are_the_labels_of_these_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "label": true}\n{"text": "y", "label": false}\n')
    assert read(path, ("true", "FALSE")) == [("x", 0), ("y", 1)]


def test_a_number_that_names_could_mean_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,1\n")
    with pytest.raises(InputError, match="'label' is '1', which is no label of the model") as caught:
        read(path, ("1 star", "2 stars"))
    assert caught.value.remedy == "Give a label by its name: 1 star, 2 stars."
    assert read(path, ("LABEL_0", "LABEL_1")) == read(path, ("level 0", "other")) == [("x", 1)]


@pytest.mark.parametrize(
    ("record", "said", "advice"),
    [
        ({"text": "a"}, "no column 'label'; the columns are 'text'", "data.label_column"),
        ({"label": 1, "body": "a"}, "no column 'text'; the columns are 'label', 'body'", "data.text_column"),
        ({"text": " ", "label": 1}, "'text' is blank", "Give the record a text"),
        ({"text": 3, "label": 1}, "'text' is int, not text", "data.text_column"),
        ({"text": "a", "label": None}, "'label' is blank", "Give the record a label"),
        ({"text": "a", "label": math.nan}, "'label' is blank", "Give the record a label"),
        ({"text": "a", "label": 0.5}, "'label' is 0.5, which is no label of the model", "0 bad, 1 good"),
        ({"text": "a", "label": 2.0}, "'label' is 2.0, which is no label of the model", "0 bad, 1 good"),
        ({"text": "a", "label": True}, "'label' is True, a bool", "0 bad, 1 good"),
        ({"text": "a", "label": [1]}, "'label' is [1], a list", "0 bad, 1 good"),
        ({"text": "a", "label": 2}, "'label' is 2, which is no label of the model", "0 bad, 1 good"),
        ({"text": "a", "label": -1}, "'label' is -1, which is no label of the model", "0 bad, 1 good"),
        ({"text": "a", "label": "goood"}, "no label of the model (did you mean 'good'?)", "0 bad, 1 good"),
    ],
)
def test_a_record_that_has_no_right_label_is_refused_by_its_line(
    tmp_path: Path, record: dict[str, Any], said: str, advice: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine", "label": "good"}\n\n' + json.dumps(record))
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.where == f"{path}:3"
    assert said in caught.value.message
    assert advice in (caught.value.remedy or "")


def test_a_text_with_two_labels_is_refused_by_its_second_line(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("text,label\na film,good\nfine,good\n")
    second.write_text("text,label\na  film,1\na film,bad\n")
    for config in (DataConfig(train=(first, second)), DataConfig(eval=(first, second))):
        with pytest.raises(InputError) as caught:
            load_held_out(config, seed=0, kind="labels", labels=MOODS)
        assert caught.value.where == f"{second}:3"
        assert caught.value.message == f"the text has the label 'bad', and 'good' in {first}:2"


def test_labels_are_needed_where_texts_must_have_them(tmp_path: Path) -> None:
    plain, alike = tmp_path / "a.txt", tmp_path / "a.csv"
    plain.write_text("a text")
    alike.write_text("text,label\none,good\ntwo,1\n")
    for train, said in (
        ((), "the built-in corpus holds no labels"),
        ((plain,), "a file of plain text holds no labels"),
        ((alike,), "every text has the label 'good'"),
    ):
        with pytest.raises(InputError, match=said):
            load_text(DataConfig(train=train), seed=0, kind="labels", labels=MOODS)
    with pytest.raises(InputError, match="the built-in corpus holds no labels") as caught:
        load_held_out(DataConfig(), seed=0, kind="labels", labels=MOODS)
    assert str(caught.value.where) == "data.eval"
    # What is only measured may be of one label.
    assert len(load_held_out(DataConfig(eval=(alike,)), seed=0, kind="labels", labels=MOODS).held_out) == 2


def test_held_out_texts_keep_their_labels_and_are_drawn_by_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("body,mood\n" + "".join(f"text {n},{MOODS[n % 2]}\n" for n in range(40)))
    config = DataConfig(train=(path,), text_column="body", label_column="mood", eval_fraction=0.2)
    split = load_text(config, seed=3, kind="labels", labels=MOODS)
    assert len(split.held_out) == 8
    assert all(each.label == int(each.text[5:]) % 2 for each in (*split.train, *split.held_out))
    assert load_text(config, seed=3, kind="labels", labels=MOODS) == split
    other = [Document(each.spans, 0) for each in split.held_out]
    assert text_sha256(other) != text_sha256(split.held_out)


def test_windows_hold_whole_texts_with_their_labels_at_their_beginnings() -> None:
    tokenizer = tiny_tokenizer()
    documents = [Document(Document.plain(f"number {n} " * (n % 5 + 1)).spans, n % 3) for n in range(30)]
    windows = pack_labelled(documents, tokenizer, 48, seed=1)
    assert windows.input_ids.shape[1] == 48
    starts_NT = np.diff(windows.segment_ids, prepend=-1, axis=1) == 1
    targets_NT = vars(windows).get("targets", vars(windows).get("labels"))
    assert targets_NT is not None
    scored_NT = targets_NT != IGNORED_LABEL
    assert (starts_NT | ~scored_NT).all(), "a label is anywhere but at a text's beginning"
    found = []
    for window, at in np.argwhere(scored_NT):
        own = windows.segment_ids[window] == windows.segment_ids[window, at]
        text = tokenizer.decode(windows.input_ids[window][own], skip_special_tokens=True)
        found.append((text, int(targets_NT[window, at])))
    assert sorted(found) == sorted((each.text, each.label) for each in documents)
    assert (windows.input_ids[:, 0] == tokenizer.bos_token_id).all()
    few = pack_labelled(documents, tokenizer, 48, seed=1, limit=2)
    assert (few.input_ids == windows.input_ids[:2]).all()


def test_texts_that_fill_no_window_are_repeated_without_their_labels_and_long_ones_cut() -> None:
    tokenizer = tiny_tokenizer()
    short, long = (Document(Document.plain("fox " * count).spans, 1) for count in (1, 200))
    windows = pack_labelled([short], tokenizer, 32, seed=0)
    assert windows.input_ids.shape == (1, 32)
    assert windows.segment_ids.max() > 2
    cut = pack_labelled([long], tokenizer, 32, seed=0)
    assert cut.segment_ids.max() == 0


def test_held_out_texts_are_as_many_as_fill_the_windows_in_any_tokenizer() -> None:
    documents = [Document(Document.plain(f"text {n:02}").spans, n % 2) for n in range(100)]
    for tokenizer in (tiny_tokenizer(), encoder_tokenizer()):
        texts = labelled_texts(documents, tokenizer, longest=32, tokens=50)
        assert len(texts.input_ids) == 50 * 4 // len("text 00")
        assert texts.labels.tolist() == [n * 100 // 28 % 2 for n in range(28)]
        assert len(labelled_texts(documents, tokenizer, longest=32, tokens=10**6).labels) == 100
        assert len(labelled_texts(documents, tokenizer, longest=32, tokens=1).labels) == 1


NLI = ("contradiction", "entailment", "neutral")
FILE = ["entailment", "neutral", "contradiction"]


def named(names: list[str]) -> dict[str, Any]:
    """What `datasets` writes of a column of labels."""
    return {"names": names, "_type": "ClassLabel"}


def write_named(path: Path, columns: dict[str, Any], features: Any) -> None:
    """Write a file that says of its columns what `datasets` would."""
    said = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(pa.table(columns).replace_schema_metadata({b"huggingface": said}), path)


@pytest.mark.parametrize(
    ("theirs", "ours", "right"),
    [
        (FILE, NLI, [1, 2, 0]),
        (FILE, tuple(map(str.upper, NLI)), [1, 2, 0]),
        (FILE, (*NLI, "unknown"), [1, 2, 0]),
        (["a", "B", "A"], ("A", "b", "a"), [2, 1, 0]),
        (FILE, ("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2]),
        (["neg", "pos", "so-so"], ("NEGATIVE", "POSITIVE", "MIXED"), [0, 1, 2]),
        (["0", "1", "2"], ("1", "2", "0"), [2, 0, 1]),
    ],
)
def test_a_number_that_its_file_names_is_the_label_of_that_name(
    tmp_path: Path, theirs: list[str], ours: tuple[str, ...], right: list[int]
) -> None:
    texts = [f"text {number}" for number in range(3)]
    write_named(tmp_path / "a.parquet", {"text": texts, "label": [0, 1, 2]}, {"label": named(theirs)})
    assert read(tmp_path / "a.parquet", ours) == list(zip(texts, right, strict=True))


def test_a_named_number_without_a_label_of_its_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_named(path, {"text": ["a", "b"], "label": [0, 1]}, {"label": named(FILE)})
    with pytest.raises(InputError) as caught:
        read(path, ("not_entailment", "entailment"))
    assert caught.value.where == f"{path}: row 2"
    assert caught.value.message == "'label' is 1 ('neutral' in the file), which is no label of the model"
    write_named(path, {"text": ["a"], "label": [-1]}, {"label": named(FILE)})
    with pytest.raises(InputError, match="'label' is -1, which is no label of the model"):
        read(path, NLI)


@pytest.mark.parametrize(
    ("names", "right"),
    [(["1", "2", "3"], [1.0, 2.0, 3.0]), (["0.5", "-1", "2e1"], [0.5, -1.0, 20.0]), (FILE, [0.0, 1.0, 2.0])],
)
def test_a_score_that_its_file_names_by_a_number_is_that_number(
    tmp_path: Path, names: list[str], right: list[float]
) -> None:
    path, records = tmp_path / "a.parquet", Ratings(Fields({}, SCORES))
    write_named(path, {"text": ["a", "b", "c"], "label": [0, 1, 2]}, {"label": named(names)})
    assert [document.score for document in read_documents(path, records)] == right
    write_named(path, {"text": ["a"], "label": [-1]}, {"label": named(names)})
    with pytest.raises(InputError, match="'label' is -1, to which its file gives no name"):
        read_documents(path, records)


@pytest.mark.parametrize(
    ("features", "column"),
    [
        ({"tags": {"feature": named(["O", "B-PER", "B-MISC"]), "_type": "List"}}, "tags"),
        ({"tags": {"feature": named(["O", "B-PER", "B-MISC"]), "length": -1, "_type": "Sequence"}}, "tags"),
        ({"tags": [named(["O", "B-PER", "B-MISC"])]}, "tags"),
        ({"of": {"tags": {"feature": named(["O", "B-PER", "B-MISC"]), "_type": "List"}}}, "of.tags"),
    ],
)
def test_numbers_in_lists_and_objects_keep_their_names(tmp_path: Path, features: Any, column: str) -> None:
    tags = [1, 0, 2]
    columns = {"words": [["Anna", "is", "Dutch"]], "tags": [tags], "of": [{"tags": tags}]}
    write_named(tmp_path / "a.parquet", columns, features)
    kind = TaggedWords(Fields({"tags": column}, KNOWN), ("O", "B-MISC", "B-PER"))
    (document,) = read_documents(tmp_path / "a.parquet", kind)
    assert document.tags is not None
    assert document.tags.numbers == (2, 0, 1)


@pytest.mark.parametrize(
    "features", [None, [1], {"label": 3}, {"label": [3]}, {"label": {**named(["a"]), "names": 3}}]
)
def test_what_a_file_says_of_its_columns_in_another_form_is_passed_over(
    tmp_path: Path, features: Any
) -> None:
    write_named(tmp_path / "a.parquet", {"text": ["a"], "label": [1]}, features)
    assert read(tmp_path / "a.parquet") == [("a", 1)]
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": b"["})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("a", 1)]
