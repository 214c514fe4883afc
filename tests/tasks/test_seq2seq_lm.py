"""Sequence to sequence: its perplexity, and an imported T5 through the whole chain by the command line."""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing
from transformers import T5ForConditionalGeneration

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.documents import SOURCE, TARGET, Document, Span
from roots_compress.data.pairs import EvaluationPairs, evaluation_pairs
from roots_compress.evaluation.skills.subject import Subject
from roots_compress.tasks.figures.references import reference_figures
from roots_compress.tasks.seq2seq_lm import Seq2SeqLM
from tests.families.sources import save_source, seq2seq
from tests.tasks.commands import PRUNE, carry_out, metrics_of, recipe, roots

TASK = Seq2SeqLM()
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "reads",
    "one",
    "model",
    "after",
    "another",
]
TEXTS = [(" ".join(WORDS[n : n + 3 + n % 4]), " ".join(WORDS[n : n + 3 + n % 4]).upper()) for n in range(9)]
PAIRS = [Document((Span(source, False, SOURCE), Span(target, True, TARGET))) for source, target in TEXTS]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"feed_forward_proj": "gated-gelu", "d_ff": 64, "pad_token_id": 2}
    return save_source(seq2seq("t5", changes), tmp_path_factory.mktemp("t5") / "source")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"source": f"{read} {n}", "target": f"{said} {n}"} for n in range(12) for read, said in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_perplexity_is_of_each_token_of_the_targets(source: Path) -> None:
    checkpoint = load_checkpoint(source)
    engine = TASK.serve_model(checkpoint.model)
    config = EvaluationConfig(windows=5, block_size=32)
    pairs = TASK.examples(PAIRS, checkpoint.tokenizer, config)
    assert isinstance(pairs, EvaluationPairs)
    nats = 0.0
    for read, mask, said in zip(pairs.input_ids, pairs.mask, pairs.targets, strict=True):
        labels = torch.from_numpy(said[said >= 0])[None]
        with torch.no_grad():
            output = checkpoint.model(input_ids=torch.from_numpy(read[mask > 0])[None], labels=labels)
        nats += float(F.cross_entropy(output.logits[0], labels[0], reduction="sum"))
    found = TASK.quality(engine, pairs)
    assert found["target_perplexity"] == pytest.approx(math.exp(nats / pairs.scored_tokens), rel=1e-5)
    size = sum(len(each.encode()) for each in pairs.references)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    t5 = T5ForConditionalGeneration.from_pretrained(source)
    with torch.no_grad():
        ids = t5.generate(  # type: ignore[misc]
            input_ids=torch.from_numpy(pairs.input_ids),
            attention_mask=torch.from_numpy(pairs.mask),
            max_new_tokens=pairs.targets.shape[1] + 1,
            do_sample=False,
            eos_token_id=checkpoint.tokenizer.eos_token_id,
            pad_token_id=checkpoint.tokenizer.pad_token_id,
        )
    written = tuple(checkpoint.tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True))
    assert TASK.written_quality(engine, replace(pairs, references=written))["exact_match"] == 1
    assert TASK.written_quality(engine, pairs)["exact_match"] < 1


def test_a_target_is_as_likely_as_its_tokens_together_whatever_it_is_read_with(source: Path) -> None:
    checkpoint = load_checkpoint(source)
    subject = Subject(TASK, TASK.serve_model(checkpoint.model), checkpoint.tokenizer, ())
    asked = [subject.asked(*each) for each in TEXTS[:4]]
    assert len({len(each.context) for each in asked}) > 1
    for each, found in zip(asked, subject.likelihoods(asked), strict=True):
        labels = torch.tensor([each.continuation])
        with torch.no_grad():
            logits = checkpoint.model(input_ids=torch.tensor([each.context]), labels=labels).logits[0]
        expected = -float(F.cross_entropy(logits, labels[0], reduction="sum"))
        assert found.log_probability == pytest.approx(expected, rel=1e-5)
        assert found.is_greedy == bool((logits.argmax(-1) == labels[0]).all())
    written = subject.written(TEXTS[0][0], stops=[], max_new_tokens=4)
    assert subject.written(TEXTS[0][0], stops=[written[1:3]], max_new_tokens=4) == written[:1]


def test_what_every_target_begins_with_is_read_and_counts_for_nothing(source: Path) -> None:
    """BART's targets begin with BOS, and a translator's with a language, as perplexity has them too."""
    checkpoint = load_checkpoint(source)
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    backend = tokenizer.backend_tokenizer
    around = [(token, backend.token_to_id(token)) for token in ("<bos>", "<eos>")]
    backend.post_processor = TemplateProcessing(single=["<bos>", "$A", "<eos>"], special_tokens=around)
    subject = Subject(TASK, TASK.serve_model(checkpoint.model), tokenizer, ())
    said = evaluation_pairs(PAIRS[:1], tokenizer, longest=32, limit=1).targets[0].tolist()
    asked = subject.asked(*TEXTS[0])
    assert asked.continuation == said[:-1]
    labels = torch.tensor([asked.continuation])
    with torch.no_grad():
        logits = checkpoint.model(input_ids=torch.tensor([asked.context]), labels=labels).logits[0, 1:]
    (found,) = subject.likelihoods([asked])
    expected = -float(F.cross_entropy(logits, labels[0, 1:], reduction="sum"))
    assert found.log_probability == pytest.approx(expected, rel=1e-5)


def test_figures_against_references() -> None:
    found = reference_figures(["A cat sat. ", "no"], ["A cat sat.", "A dog sat on the mat."])
    assert found["exact_match"] == 0.5
    assert 0 < found["bleu"] < 100 > found["chrf"] > 0
    assert found["rouge_l"] == 0.5
    same = reference_figures(["A dog sat."], ["A dog sat."])
    assert [same[name] for name in ("exact_match", "chrf", "rouge_l")] == [1.0, 100.0, 1.0]


def test_a_gate_on_a_figure_whose_package_is_missing_is_refused_at_once(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"name": "t5", "model": str(source), "data": {"eval": [str(data)]}, "gates": {"min_chrf": 20.0}}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    said = roots("plan", path, "--run", tmp_path / "run", code=2)
    assert "gates.min_chrf" in said
    assert "sacrebleu is not installed" in said


def test_a_t5_goes_through_every_stage(source: Path, data: Path, tmp_path: Path) -> None:
    few, run = {"steps": 3, "batch_size": 2, "block_size": 32}, tmp_path / "run"
    calibration = {"windows": 4, "block_size": 32}
    document = recipe(
        source,
        data,
        {"kind": "tune", "training": few, "answers": 2, "answer_tokens": 4, "teacher": str(source)},
        {
            "kind": "distill",
            "student": "small",
            "loss": {"top_k": 8, "teacher_text_ratio": 0.5},
            "training": few,
        },
        {
            **PRUNE,
            "head_ratio": 0.25,
            "residual_ratio": 0.25,
            "multiple_of": 8,
            "calibration": calibration,
            "recovery": {"training": few, "loss": {"hidden_weight": 0.1}},
        },
        gates={"max_target_perplexity_ratio": 3.0},
    )
    document["evaluation"]["decode_tokens"] = 4
    carry_out(document, run)
    sets = [f"calibration.{name}={value}" for name, value in calibration.items()]
    options = [part for each in (*sets, "group_size=16") for part in ("--set", each)]
    roots("quantize", "--run", run, "--int4", *options)
    metrics = metrics_of(run)
    assert metrics["task"] == "seq2seq_lm"
    baseline, trained, distilled, pruned, quantized = metrics["stages"]
    answers = trained["notes"]["answers"]
    assert [set(each) for each in answers] == [{"prompt", "expected", "before", "teacher", "after"}] * 2
    assert distilled["notes"]["teacher_layers"] == [0, 2]
    assert pruned["notes"]["num_key_value_heads_after"] == [3] * 3
    assert quantized["bytes"] < pruned["bytes"] < distilled["bytes"] < baseline["bytes"]
    assert trained["target_perplexity"] < baseline["target_perplexity"]
    for stage in metrics["stages"]:
        assert stage["target_perplexity"] == pytest.approx(stage["torch_target_perplexity"], rel=0.05)
    assert "target perplexity" in roots(
        "eval", run / "04-quantize", "--eval-data", data, "--block-size", "32"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on-policy-ratio", "0.5"), "writes whole targets only"),
        (("--data", "missing.jsonl"), "missing.jsonl:2"),
    ],
)
def test_what_pairs_do_not_have_is_refused(
    source: Path, data: Path, tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    missing = tmp_path / "missing.jsonl"
    missing.write_text('{"source": "a", "target": "b"}\n{"source": "c"}\n')
    given = [str(missing) if each == missing.name else each for each in options]
    if "--data" not in given:
        given += ["--data", str(data)]
    found = roots("distill", "--teacher", source, "--run", tmp_path / "run", *given, code=2)
    assert said in found
