"""Scores of pairs, as rerankers give them, from a table to a report, with a tiny BERT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.write_back import write_back
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.documents import Document
from roots_compress.data.labelled import pack_scored, scored_texts
from roots_compress.data.sources.records import Fields, RecordError
from roots_compress.data.sources.scores import KNOWN, Scores
from roots_compress.errors import InputError
from roots_compress.evaluation.intervals import interval
from roots_compress.models.labels import RootsForScore
from roots_compress.models.ops.heads import ScoreHead
from roots_compress.tasks.figures.predictions import Scores as PartScores
from roots_compress.tasks.rating import Rating, auc
from roots_compress.tasks.scoring import Scoring, spearman
from tests.encoders import encoder_tokenizer, save_bert
from tests.specs import bert
from tests.tasks.commands import (
    PRUNE,
    QUANTIZE,
    carry_out,
    graph_outputs,
    metrics_of,
    recipe,
    roots,
    training,
)
from tests.tiny import tiny_tokens

WORDS = ("fox", "dog", "rain", "wind", "quick", "lazy", "def", "return")
IDENTITY = "torch.nn.modules.linear.Identity"


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """Return an encoder's tokenizer that joins two texts as BERT's does."""
    tokenizer = encoder_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        pair="<bos> $A <eos> $B:1 <eos>:1",
        special_tokens=[("<bos>", 0), ("<eos>", 1)],
    )
    return tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as sentence-transformers writes one that gives a score."""
    folder = tmp_path_factory.mktemp("scores")
    save_bert(folder, BertForSequenceClassification, num_labels=1)
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": IDENTITY, "version": "5.1.0"}
    (folder / "config.json").write_text(json.dumps(config))
    pair_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 200 pairs, half of them with a number: how many words they share."""
    draw, records = np.random.default_rng(0), []
    for number in range(200):
        first, second = (draw.permutation(WORDS)[:4].tolist() for _ in range(2))
        record: dict[str, Any] = {"query": " ".join(first), "passage": f"{' '.join(second)} {number}"}
        if number % 2:
            record["score"] = len({*first} & {*second})
        records.append(json.dumps(record))
    path = tmp_path_factory.mktemp("table") / "pairs.jsonl"
    path.write_text("\n".join(records))
    return path


def documents() -> list[Document]:
    records = Scores(Fields({}, KNOWN))
    given = [{"query": "the quick fox", "passage": " ".join(WORDS * size)} for size in (1, 2, 5)]
    return [records.document({**each, "score": "0.5"}, "here") for each in given]


def test_pairs_are_read_as_transformers_reads_them(source: Path) -> None:
    tokenizer = load_checkpoint(source).tokenizer
    theirs = PreTrainedTokenizerFast.from_pretrained(source)
    read = scored_texts(documents(), tokenizer, longest=24, tokens=1000)
    assert read.token_types is not None
    for row, document in enumerate(documents()):
        texts = [span.text for span in document.spans]
        expected = theirs(*texts, truncation=True, max_length=24, return_token_type_ids=True)
        size = int(read.mask[row].sum())
        assert read.input_ids[row, :size].tolist() == expected["input_ids"]
        assert read.token_types[row, :size].tolist() == expected["token_type_ids"]
    assert read.scores.tolist() == [0.5] * 3
    with pytest.raises(InputError, match="4 tokens have no room for a pair"):
        scored_texts(documents(), tokenizer, longest=4, tokens=1000)


def test_likeness_is_the_share_of_the_variance_that_is_explained() -> None:
    examples = scored_texts(documents(), pair_tokenizer(), longest=24, tokens=1000)
    original_N1, scores_N1 = (np.array([each], np.float32).T for each in ((0, 1, 2), (0, 1, 4)))
    found, parts_N = Scoring().likeness(scores_N1, original_N1, examples, bert)
    assert found == pytest.approx({"score_r2": -1, "score_mse": 4 / 3, "spearman": 1, "label_spearman": 0})
    # What is explained, and what the text makes the variance of the original scores larger by.
    assert parts_N == pytest.approx([1 + 2 * 0.5, 1 - 2, -5 + 2 * 0.5])
    one_known = replace(examples, scores=np.array([np.nan, 0.5, np.nan]))
    assert "label_spearman" not in Scoring().likeness(scores_N1, original_N1, one_known, bert)[0]


def test_packed_pairs_get_the_scores_that_they_get_alone(source: Path) -> None:
    checkpoint = load_checkpoint(source)
    windows = pack_scored(documents(), checkpoint.tokenizer, 64, seed=0)
    alone = scored_texts(documents(), checkpoint.tokenizer, longest=64, tokens=1000)
    with torch.no_grad():
        packed = checkpoint.model(**{name: torch.from_numpy(each) for name, each in windows.inputs().items()})
        given = {
            "input_ids": alone.input_ids,
            "attention_mask": alone.mask,
            "token_type_ids": alone.token_types,
        }
        single = checkpoint.model(**{name: torch.from_numpy(each) for name, each in given.items()})
    whole = (windows.targets == 0).flatten()
    begins = np.pad(np.diff(windows.segment_ids, axis=1) != 0, ((0, 0), (1, 0)), constant_values=True)
    found = packed.logits[whole[begins.flatten()], 0].sort().values
    torch.testing.assert_close(found, single.logits[:, 0].sort().values, atol=1e-5, rtol=0)


def test_checkpoint_graphs_and_the_way_back_give_the_source_s_scores(source: Path, tmp_path: Path) -> None:
    ours = load_checkpoint(source)
    assert ours.model.config.spec.head == ScoreHead(sigmoid=False)
    write_back(ours, "bert", tmp_path / "back")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["sentence_transformers"] == {"activation_fn": IDENTITY}
    ids_BT = tiny_tokens(2, 12)
    feeds = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
    feeds["attention_mask"][1, 7:] = 0
    feeds["token_type_ids"] = torch.zeros_like(ids_BT)
    feeds["token_type_ids"][:, 5:] = 1
    theirs, again = (
        BertForSequenceClassification.from_pretrained(folder).eval() for folder in (source, tmp_path / "back")
    )
    with torch.no_grad():
        expected_B1 = theirs(**feeds).logits
        for model in (ours.model, again):
            torch.testing.assert_close(model(**feeds).logits, expected_B1, atol=1e-5, rtol=0)
    for scores_B1 in graph_outputs(source, tmp_path, "logits", feeds):
        np.testing.assert_allclose(scores_B1, expected_B1.numpy(), atol=1e-5)


def test_a_recipe_compresses_a_reranker_and_reports_its_likeness(
    source: Path, table: Path, tmp_path: Path
) -> None:
    few, run = training(12, learning_rate=0.006), tmp_path / "run"
    distill = {"kind": "distill", "loss": {"hidden_weight": 0.5}, "training": few}
    prune = {**PRUNE, "head_ratio": 0.25, "recovery": {"training": few}}
    others = {
        "data": {"train": [str(table)], "eval_fraction": 0.3},
        "gates": {"min_score_r2": -3, "max_score_mse": 1},
    }
    carry_out(recipe(source, table, distill, prune, QUANTIZE, windows=30, **others), run)
    metrics = metrics_of(run)
    assert metrics["task"] == "scoring"
    baseline, distilled, pruned, quantized = metrics["stages"]
    assert baseline["score_r2"] == pytest.approx(1, abs=1e-6)
    assert distilled["notes"]["losses"].keys() == {"divergence", "hidden"}
    assert quantized["parameters"] < baseline["parameters"]
    assert pruned["score_mse"] > 0
    assert abs(quantized["score_r2"] - pruned["score_r2"]) < 0.1
    assert {"spearman", "label_spearman"} <= quantized.keys()
    assert "score R2" in roots("report", run)
    for options, said in (
        (("train", source, "--train-block-size", "32"), "no labels for scoring"),
        (("tune", source, "--data", table, "--run", tmp_path / "third"), "there is no score"),
        (("eval", source, "--eval-data", table), "is not known of a model by itself"),
        (("quantize", source, "--run", tmp_path / "other"), "the built-in corpus holds no pairs of texts"),
    ):
        assert said in roots(*options, "--block-size", "32", code=2)


QUICK = ("--windows", "60", "--block-size", "32", "--threads", "1")


def rated(folder: Path, largest: int = 1) -> Path:
    """Return 240 pairs with a number: 0, or for some words of the second text another."""
    draw, records = np.random.default_rng(1), []
    for number in range(240):
        right = number % 2
        word = ("rain", "wind", "fox", "dog")[2 * right + int(draw.integers(2))]
        records.append(
            json.dumps({"query": "quick lazy", "passage": f"{word} {number}", "label": right * largest})
        )
    path = folder / f"rated{largest}.jsonl"
    path.write_text("\n".join(records))
    return path


def test_tune_teaches_a_reranker_the_numbers_in_the_data(tmp_path: Path) -> None:
    """As probabilities, unless the configuration says regression."""
    torch.manual_seed(0)
    for name, settings in (("tuned", {}), ("regression", {"problem_type": "regression"})):
        save_bert(tmp_path / name, BertForSequenceClassification, num_labels=1, **settings)
        pair_tokenizer().save_pretrained(tmp_path / name)
    source, run, data = tmp_path / "tuned", tmp_path / "run", rated(tmp_path)
    learn = ("--steps", "60", "--lr", "0.01", "--train-block-size", "64", "--run", run)
    roots("tune", source, "--data", data, *learn, *QUICK)
    metrics = metrics_of(run)
    assert metrics["task"] == "rating"
    before, after = metrics["stages"]
    assert after["label_spearman"] > before["label_spearman"] + 0.3
    assert after["auc"] > 0.7
    assert after["label_pearson"] > 0.3
    assert after["notes"]["losses"]["score_loss"] < np.log(2)
    said = roots("eval", run / "01-tune", "--eval-data", data, "--records", "ratings", *QUICK)
    assert "Spearman" in said
    assert "AUC" in said
    (alike := tmp_path / "alike.jsonl").write_text("\n".join(data.read_text().splitlines()[::2]))
    fault = roots("eval", run / "01-tune", "--eval-data", alike, "--records", "ratings", *QUICK, code=2)
    assert "all have the same number" in fault
    fault = roots("tune", source, "--data", rated(tmp_path, 5), "--run", tmp_path / "again", code=2)
    assert "holds the number 5, and the model's score is a probability from 0 to 1" in fault
    scores_B1, right_B = torch.tensor([[0.5], [3.0]]), torch.tensor([0.0, 5.0])
    model = load_checkpoint(tmp_path / "regression").model
    assert isinstance(model, RootsForScore)
    assert model.label_loss(scores_B1, right_B) == pytest.approx((0.25 + 4) / 2)


def test_tune_mixes_a_teachers_scores_with_the_numbers_in_the_data(tmp_path: Path) -> None:
    """An untaught teacher says nothing of the numbers: only with their weight are they learnt."""
    torch.manual_seed(0)
    for name in ("tuned", "teacher"):
        save_bert(tmp_path / name, BertForSequenceClassification, num_labels=1)
        pair_tokenizer().save_pretrained(tmp_path / name)
    data = rated(tmp_path)
    learn = ("--steps", "60", "--lr", "0.01", "--train-block-size", "64", *QUICK)
    tune = ("tune", tmp_path / "tuned", "--data", data, "--teacher", tmp_path / "teacher", *learn)
    gained, losses = {}, {}
    for weight in ("0", "0.9"):
        roots(*tune, "--ce-weight", weight, "--run", tmp_path / weight)
        before, after = metrics_of(tmp_path / weight)["stages"]
        gained[weight] = after["label_spearman"] - before["label_spearman"]
        losses[weight] = after["notes"]["losses"]
    assert gained["0.9"] > 0.3 > gained["0"]
    assert set(losses["0"]) == {"divergence"}
    assert set(losses["0.9"]) == {"score_loss", "divergence"}
    beyond = ("--data", rated(tmp_path, 5), "--run", tmp_path / "refused", *QUICK)
    fault = roots("tune", tmp_path / "tuned", "--teacher", tmp_path / "teacher", *beyond, code=2)
    assert "holds the number 5, and the model's score is a probability from 0 to 1" in fault


def test_a_sentence_encoder_gets_a_head_for_a_score(tmp_path: Path) -> None:
    save_bert(tmp_path / "masked", BertForMaskedLM)
    pair_tokenizer().save_pretrained(tmp_path / "masked")
    learn = ("--steps", "2", "--train-block-size", "64", "--run", tmp_path / "run")
    tune = ("tune", tmp_path / "masked", "--data", rated(tmp_path), *learn, *QUICK)
    assert "one, for a score" in roots(*tune, code=2)
    refused = roots(*tune, "--records", "ratings", "--label", "yes", "--label", "no", code=2)
    assert "a score has one label, and there are 2" in refused
    roots(*tune, "--records", "ratings", "--label", "relevance")
    head = load_checkpoint(tmp_path / "run" / "01-tune" / "checkpoint").model.config.spec.head
    assert isinstance(head, ScoreHead)
    assert head.names == ("relevance",)
    write_back(load_checkpoint(tmp_path / "run" / "01-tune" / "checkpoint"), "bert", tmp_path / "back")


def test_numbers_must_differ_among_the_texts_that_are_measured() -> None:
    records, task = Scores(Fields({}, KNOWN)), Rating()
    rated = [records.document({"query": "fox rain", "score": number % 2}, "here") for number in range(16)]
    half, all_16 = (
        task.examples(rated, pair_tokenizer(), EvaluationConfig(windows=windows, block_size=16))
        for windows in (1, 2)
    )
    task.check_examples(all_16)
    with pytest.raises(InputError, match="the 8 held-out records that are measured all have the same number"):
        task.check_examples(half)


def test_the_settings_that_new_files_of_rerankers_hold_are_read(source: Path, tmp_path: Path) -> None:
    """As sentence-transformers 6 writes them, in files of their own."""
    folder = tmp_path / "new"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["sentence_transformers"]
    (folder / "config.json").write_text(json.dumps(config))
    assert inspect_source(folder).spec.head == ScoreHead(sigmoid=True)
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"activation_fn": IDENTITY, "model_type": "CrossEncoder"}))
    module = {"idx": 0, "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    tokenizer = folder / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "model_max_length": 20}))
    spec = inspect_source(folder).spec
    assert (spec.head, spec.max_positions) == (ScoreHead(sigmoid=False), 20)
    write_back(load_checkpoint(folder), "bert", tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec == spec
    for asked in ({"activation_fn": "torch.nn.Tanh"}, {"default_prompt_name": "q", "prompts": {"q": "is: "}}):
        settings.write_text(json.dumps(asked))
        with pytest.raises(InputError, match=next(iter(asked))):
            inspect_source(folder)


@pytest.mark.parametrize("sigmoid", [True, False])
def test_a_score_that_is_as_it_was_taught_goes_with_the_data(sigmoid: bool) -> None:
    right_N1 = np.array([[0.02], [0.5], [0.6]])
    examples = replace(
        scored_texts(documents(), pair_tokenizer(), longest=24, tokens=1000), scores=right_N1[:, 0]
    )
    given_N1 = (np.log(right_N1 / (1 - right_N1)) if sigmoid else right_N1).astype(np.float32)
    spec = bert(ScoreHead(sigmoid=sigmoid))
    found, _ = Rating().likeness(given_N1, given_N1, examples, lambda: spec)
    assert found == pytest.approx({"label_spearman": 1, "label_pearson": 1})


def resampled(figure: Callable[[Any], float], count: int) -> np.ndarray[Any, Any]:
    """Return the 95% interval of a figure that is computed anew of each of many resamples."""
    draws = np.random.default_rng(1).integers(count, size=(2000, count))
    return np.quantile([figure(draw_N) for draw_N in draws], (0.025, 0.975))


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_intervals_of_correlations_and_of_r2_are_those_of_resampled_texts(noise: float) -> None:
    """And not those of a mean: of scores that order texts as the data do, no text is uncertain."""
    draw, count = np.random.default_rng(0), 200
    right_N = draw.normal(size=count)
    given_N = right_N + noise * draw.normal(size=count)
    examples = scored_texts(documents()[:1] * count, pair_tokenizer(), longest=24, tokens=100_000)
    examples = replace(examples, scores=right_N)
    spec = bert(ScoreHead(sigmoid=False))

    def found(task: Scoring) -> tuple[float, float]:
        given_N1, right_N1 = (each_N[:, None].astype(np.float32) for each_N in (given_N, right_N))
        figures, parts_N = task.likeness(given_N1, right_N1, examples, lambda: spec)
        assert parts_N.mean() == pytest.approx(figures[task.metric.name])
        scores = PartScores(parts_N, np.ones(count, np.int64))
        return interval(scores, most=task.metric.most) or (np.nan, np.nan)

    def r2(draw_N: Any) -> float:
        original_N = right_N[draw_N]
        return float(1 - ((given_N[draw_N] - original_N) ** 2).mean() / original_N.var())

    wanted = resampled(lambda draw_N: spearman(given_N[draw_N], right_N[draw_N]), count)
    assert found(Rating()) == pytest.approx(wanted, abs=0.015)
    assert found(Scoring()) == pytest.approx(resampled(r2, count), abs=0.1 * noise**2 + 1e-9)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])) == 3.5 / 4


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"passage": "b"}, "no column holds the first"),
        ({"query": "a", "passage": " "}, "the second ('passage') is blank"),
        ({"query": "a", "score": "good"}, "'score' is 'good', which is no number"),
        ({"query": "a", "score": float("inf")}, "which is no number"),
    ],
)
def test_records_that_cannot_be_scored_are_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError) as refused:
        Scores(Fields({}, KNOWN)).document(record, "here")
    assert said in str(refused.value)


def test_the_rank_correlation_gives_ties_their_mean_rank() -> None:
    left, right = np.array([10.0, 20.0, 20.0, 90.0]), np.array([0.1, 0.3, 0.2, 0.4])
    # From their mean the ranks are (-1.5, 0, 0, 1.5) and (-1.5, 0.5, -0.5, 1.5).
    assert spearman(left, right) == pytest.approx(4.5 / (4.5 * 5.0) ** 0.5)
    assert spearman(left, left) == 1
    assert spearman(left, np.zeros(4)) == 0
