"""Sequence classification from a labelled table to a report, with a tiny BERT and by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import BertForMaskedLM, BertForSequenceClassification

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from roots_compress.data.labelled import labelled_texts, pack_labelled
from roots_compress.data.sources.labels import Labels
from roots_compress.data.sources.records import RecordError
from roots_compress.errors import InputError
from roots_compress.models.ops.heads import ClassificationHead
from roots_compress.tasks.classification import macro_f1, matthews
from roots_compress.tasks.figures.numbering import exchanged_labels
from tests.encoders import save_bert
from tests.tasks.commands import PRUNE, QUANTIZE, carry_out, metrics_of, recipe, roots, training
from tests.tasks.test_scoring import pair_tokenizer
from tests.tiny import tiny_tokens

NAMES = ("animal", "weather", "code")
COLUMNS = ["--text-column", "sentence", "--label-column", "kind"]
WORDS = (("fox", "dog"), ("rain", "wind"), ("def", "return"))
"""Words that tell the labels apart: a text is about what it names."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    names = dict(enumerate(NAMES))
    ids = {name: number for number, name in names.items()}
    save_bert(folder, BertForSequenceClassification, id2label=names, label2id=ids)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 300 texts of three words, of which one tells the label."""
    draw = np.random.default_rng(0)
    lines = []
    for number in range(300):
        label = number % 3
        words = ["the", "quick", "brown", "jumps", "over", "a", "lazy", str(number)]
        text = [str(word) for word in draw.permutation(words)[:2]]
        text.insert(int(draw.integers(3)), WORDS[label][int(draw.integers(2))])
        lines.append(f"{' '.join(text)},{NAMES[label] if number % 2 else label}")
    path = tmp_path_factory.mktemp("table") / "texts.csv"
    path.write_text("sentence,kind\n" + "\n".join(lines) + "\n")
    return path


def test_names_of_labels_outlast_import_export_and_the_way_back(
    source: Path, table: Path, tmp_path: Path
) -> None:
    roots("import", source, "--out", tmp_path / "ours")
    roots("export", tmp_path / "ours", "--out", tmp_path / "graph")
    checkpoint = load_checkpoint(tmp_path / "ours")
    assert checkpoint.model.config.spec.head == ClassificationHead(labels=3, names=NAMES)
    write_back(checkpoint, "bert", tmp_path / "back")
    for folder in ("graph", "back"):
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert config["id2label"] == {str(number): name for number, name in enumerate(NAMES)}
        assert config["label2id"] == {name: number for number, name in enumerate(NAMES)}
    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "back").eval()
    ids_BT = tiny_tokens(2, 12)
    with torch.no_grad():
        expected_BL = BertForSequenceClassification.from_pretrained(source).eval()(ids_BT).logits
        torch.testing.assert_close(theirs(ids_BT).logits, expected_BL, atol=1e-5, rtol=0)
    session = ort.InferenceSession(tmp_path / "graph" / "model.onnx")
    feeds = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
    feeds["token_type_ids"] = torch.zeros_like(ids_BT)
    (logits_BL,) = session.run(["logits"], {key: ids.numpy() for key, ids in feeds.items()})
    np.testing.assert_allclose(logits_BL, expected_BL.numpy(), atol=1e-5)
    timed = roots("bench", tmp_path / "graph", "--context", "16", "--repeats", "1")
    assert "tokens a second: median" in timed
    assert "encode batch" in timed
    # It reads every token of a text, and holds 64.
    beyond: list[str | Path] = ["--data", table, *COLUMNS, "--block-size", "65"]
    assert "65 tokens do not fit its context of 64" in roots("eval", tmp_path / "graph", *beyond, code=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label does not give names by the numbers of labels"),
        ({"id2label": {"0": "a", "1": "a"}}, "names has 'a', which is blank or the name of two labels"),
        ({"problem_type": "regression"}, "problem_type is regression with num_labels 3"),
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification"),
    ],
)
def test_labels_that_cannot_be_are_refused(
    source: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    config = json.loads((source / "config.json").read_text())
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=said):
        load_checkpoint(tmp_path)


def test_the_correlation_of_labels() -> None:
    right = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    given = np.array([1, 1, 0, 1, 0, 0, 0, 0])  # 2 right of 3 ones, 4 right of 5 zeros.
    assert matthews(given, right) == pytest.approx((2 * 4 - 1 * 1) / (3 * 3 * 5 * 5) ** 0.5)
    assert matthews(right, right) == 1
    assert matthews(np.zeros(8, np.int64), right) == 0
    assert matthews(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])) == pytest.approx(0.7, abs=0.02)


def test_macro_f1_is_the_mean_over_labels() -> None:
    # Hits, times given, times right. Label 0: 2, 3, 2. Label 1: 1, 1, 2. Label 2: never. Label 3: 1, 1, 1.
    given, right = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 3])
    assert macro_f1(given, right) == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)
    assert macro_f1(np.array([0, 3]), np.array([3, 0])) == 0


def settings(table: Path) -> list[str | Path]:
    return ["--data", table, *COLUMNS, "--block-size", "32", "--threads", "1"]


def test_labels_are_read_by_the_model_s_names(source: Path, table: Path, tmp_path: Path) -> None:
    said = roots("eval", source, *settings(table), "--windows", "100")
    assert "accuracy 0." in said
    assert "macro F1 0." in said
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("sentence,kind\na fox,animal\na def,prose\n")
    refused = roots("eval", source, *settings(wrong), code=2)
    assert f"{wrong}:3: 'kind' is 'prose', which is no label of the model" in refused
    assert "0 animal, 1 weather, 2 code" in refused
    refused = roots("eval", source, "--eval-data", table, "--block-size", "32", code=2)
    assert "no column 'text'; the columns are 'sentence', 'kind' Set --text-column" in refused
    refused = roots("quantize", source, "--run", tmp_path / "run", "--block-size", "32", code=2)
    assert "the built-in corpus holds no labels" in refused
    options = [*settings(table), "--train-block-size", "32", "--top-k", "4", "--run", tmp_path / "run"]
    assert "--top-k: is 4, and the teacher has 3 labels" in roots(
        "distill", "--teacher", source, *options, code=2
    )
    assert not (tmp_path / "run").exists()


def test_an_encoder_of_another_task_gets_a_head_for_labels_and_is_tuned(table: Path, tmp_path: Path) -> None:
    save_bert(tmp_path / "masked", BertForMaskedLM)
    labels = [option for name in NAMES for option in ("--label", name)]
    learn = ["--steps", "60", "--batch-size", "4", "--train-block-size", "64", "--lr", "0.006"]
    tune: list[str | Path] = ["tune", tmp_path / "masked", *settings(table), "--windows", "20", *learn]
    refused = roots(*tune, "--run", tmp_path / "run", code=2)
    assert "error: tune: cannot train models for masked_lm: no records say what is right for" in refused
    assert "--label" in refused
    roots(*tune, *labels, "--run", tmp_path / "run")
    untuned, tuned = (stage["accuracy"] for stage in metrics_of(tmp_path / "run")["stages"])
    assert untuned < 0.7
    assert tuned > 0.9
    refused = roots("quantize", tmp_path / "masked", *labels, "--run", tmp_path / "other", code=2)
    assert "asks for a new head, and the first stage does not teach it" in refused
    refused = roots(*tune, "--label", "animal", "--run", tmp_path / "other", code=2)
    assert "are not two labels or more" in refused


def test_pairs_of_texts_are_read_together(tmp_path: Path) -> None:
    """The label is of both: whether the second text is about what the first is."""
    draw, records = np.random.default_rng(0), []
    for number in range(200):
        same = number % 2
        about = int(draw.integers(2))
        one, other = WORDS[about][0], WORDS[about if same else 1 - about][1]
        records.append({"premise": one, "hypothesis": f"{other} {number}", "label": same})
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, records)))
    labels = Labels("text", "label", ("no", "yes"))
    documents = [labels.document(record, "here") for record in records]
    texts = labelled_texts(documents[:9], pair_tokenizer(), longest=32, tokens=10_000)
    assert texts.token_types is not None
    row = pair_tokenizer()(
        str(records[0]["premise"]), str(records[0]["hypothesis"]), return_token_type_ids=True
    )
    size = len(row["input_ids"])
    assert texts.input_ids[0, :size].tolist() == row["input_ids"]
    assert texts.token_types[0, :size].tolist() == row["token_type_ids"]
    assert pack_labelled(documents, pair_tokenizer(), 32, seed=0).token_types is not None
    named = Labels("label", "premise", ("fox", "rain"), "hypothesis")
    assert named.document({**records[0], "label": "a"}, "here").named("second") == records[0]["hypothesis"]
    alone = Labels("premise", "label", ("no", "yes")).document(records[0], "here")
    assert alone.text == records[0]["premise"]
    with pytest.raises(RecordError, match="no column 'hypothesis'"):
        named.document({"label": "a", "premise": "fox"}, "here")
    save_bert(tmp_path / "source", BertForSequenceClassification, num_labels=2)
    pair_tokenizer().save_pretrained(tmp_path / "source")
    said = roots("eval", tmp_path / "source", "--eval-data", data, "--block-size", "32", "--threads", "1")
    assert "accuracy 0." in said
    refused = roots("eval", tmp_path / "source", "--eval-data", data, "--field", "second=other", code=2)
    assert "no column 'other'" in refused


@pytest.fixture(scope="module")
def taught(source: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run in which the classifier is trained and then stored in 8 bits, by verbs."""
    run = tmp_path_factory.mktemp("taught") / "run"
    learn = ["--steps", "60", "--batch-size", "4", "--train-block-size", "64", "--lr", "0.006"]
    roots("train", source, *settings(table), "--windows", "20", *learn, "--run", run)
    shown = roots("quantize", "--weights-only", "--set", "calibration.block_size=32", "--run", run)
    assert "accuracy" in shown
    return run


@pytest.fixture(scope="module")
def trained(taught: Path) -> Path:
    return taught / "01-train" / "checkpoint"


def test_training_by_verbs_teaches_the_labels_and_int8_keeps_them(taught: Path) -> None:
    untrained, learned, quantized = (stage["accuracy"] for stage in metrics_of(taught)["stages"])
    assert untrained < 0.7
    assert learned > 0.9
    assert quantized > 0.85


def test_data_that_number_their_labels_otherwise_are_told(trained: Path, table: Path, tmp_path: Path) -> None:
    head, *lines = table.read_text().splitlines()
    moved = {name: (number + 1) % 3 for number, name in enumerate(NAMES)}
    moved |= {str(number): (number + 1) % 3 for number in range(3)}
    other = tmp_path / "other.csv"
    rows = [line.rsplit(",", 1) for line in lines]
    other.write_text("\n".join([head, *(f"{text},{moved[label]}" for text, label in rows)]))
    said = roots("eval", trained, "--eval-data", other, *COLUMNS, "--block-size", "32", "--windows", "100")
    assert "accuracy 0.0" in said
    assert "number their labels otherwise than the model does: label 0 is mostly given 2, 1 is mostly" in said
    said = roots("eval", trained, "--eval-data", table, *COLUMNS, "--block-size", "32", "--windows", "100")
    assert "number their labels otherwise" not in said


def test_labels_are_exchanged_where_they_are_given_in_rings() -> None:
    right = np.repeat([0, 1, 2, 3], 30)
    given = np.repeat([0, 2, 1, 3], 30)
    assert exchanged_labels(given, right) == [(1, 2), (2, 1)]
    assert exchanged_labels(np.zeros_like(right), right) == []  # A model that says one label.
    assert exchanged_labels(given[::2], right[::2]) == []  # Of few texts nothing is certain.
    assert exchanged_labels(np.where(np.arange(120) % 2, given, 0), right) == []


def chain(model: Path, table: Path, **changes: Any) -> dict[str, Any]:
    calibration = {"calibration": {"windows": 16, "block_size": 32}}
    recovery = {"training": training(15, block_size=64)}
    given: dict[str, Any] = {
        "data": {
            "train": [str(table)],
            "text_column": "sentence",
            "label_column": "kind",
            "eval_fraction": 0.2,
        },
        "gates": {"min_accuracy": 0.85, "min_macro_f1": 0.85, "min_size_ratio": 2.0},
    }
    return recipe(
        model,
        table,
        {"kind": "distill", "loss": {"hidden_weight": 0.5}, "training": training(40, block_size=64)},
        {**PRUNE, **calibration, "head_ratio": 0.25, "recovery": recovery},
        {**QUANTIZE, **calibration},
        windows=20,
        **{**given, **changes},
    )


def test_a_recipe_takes_a_classifier_through_the_whole_chain(
    trained: Path, table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    carry_out(chain(trained, table), run)
    rows = metrics_of(run)["stages"]
    assert [row["kind"] for row in rows] == ["baseline", "distill", "prune", "quantize"]
    assert all(row["accuracy"] > 0.85 for row in rows)
    assert rows[1]["parameters"] > rows[2]["parameters"]
    for form in ("table", "markdown", "html", "json"):
        said = roots("report", run, "--format", form)
        assert "accuracy" in said or "macro_f1" in said, form
        assert "perplexity" not in said, form
    assert "accuracy" in roots("compare", run, run)
    assert "accuracy" in roots("eval", run / "03-quantize", *settings(table)[2:], "--eval-data", table)
    missed = carry_out(chain(trained, table, gates={"min_encode_speedup": 1000.0}), run, code=3)
    assert "1 of 1 gates missed: min_encode_speedup" in missed
    refused = carry_out(chain(trained, table, gates={"max_perplexity_ratio": 1.1}), run, code=2)
    assert "models for classification do not have" in refused
    assert "min_accuracy" in refused


def test_a_search_takes_accuracy_for_a_budget(trained: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    choice = {**chain(trained, table)["stages"][2], "name": "int8"}
    search = {"max_minutes": 5, "choices": [choice]}
    gates = {"min_accuracy": 0.8, "max_bytes": 100_000}
    unweighed = chain(trained, table, stages=[], search=search, gates={**gates, "min_macro_f1": 0.8})
    refused = carry_out(unweighed, run, code=2)
    assert "gates.min_macro_f1" in refused
    assert "no budget that a search can weigh" in refused
    carry_out(chain(trained, table, stages=[], search=search, gates=gates), run)
    found = metrics_of(run)["search"]
    assert {candidate["keeps_budgets"] for candidate in found["candidates"]} == {True, False}
    assert found["best"] == ["int8"]
