"""A masked language model from transformers' folder to a report, with a tiny BERT."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.documents import Document
from roots_compress.data.texts import MaskedTexts
from roots_compress.runtime.torch_engine import TorchEncoder
from roots_compress.tasks import masked_lm
from roots_compress.tasks.masked_lm import MaskedLM
from tests.encoders import MASK_ID, encoder_tokenizer, save_bert, tiny_encoder
from tests.tasks.commands import (
    CALIBRATION,
    PRUNE,
    carry_out,
    graph_outputs,
    metrics_of,
    recipe,
    roots,
    training,
)
from tests.tiny import TEXT, tiny_fields, tiny_tokenizer, tiny_tokens

TASK = MaskedLM()
TRAINING = ("--steps", "4", "--batch-size", "2", "--train-block-size", "24", "--lr", "1e-3")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel, Path]:
    folder = tmp_path_factory.mktemp("masked")
    text = folder / "text.txt"
    text.write_text("\n\n".join([TEXT] * 40))
    return folder / "source", save_bert(folder / "source"), text


def examples(windows: int = 3, block_size: int = 16) -> MaskedTexts:
    config = EvaluationConfig(windows=windows, block_size=block_size)
    found = TASK.examples([Document.plain(f"{TEXT}\n\nOne.\n\n{TEXT}")], encoder_tokenizer(), config)
    assert isinstance(found, MaskedTexts)
    return found


def test_pseudo_perplexity_is_of_each_token_given_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_lm, "HIDDEN", 100)
    texts, model = examples(), tiny_encoder()
    nats = []
    for ids, mask in zip(torch.from_numpy(texts.input_ids), texts.mask, strict=True):
        text = ids[: int(mask.sum())]
        for place in range(1, len(text) - 1):  # Not what opens and closes it.
            read = text.clone()
            read[place] = MASK_ID
            with torch.no_grad():
                nats.append(-float(model(read[None]).logits[0, place].log_softmax(-1)[text[place]]))
    assert texts.scored_tokens == len(nats)
    found = TASK.quality(TorchEncoder(model), texts)
    assert found["pseudo_perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)


def test_of_a_long_text_evenly_spaced_tokens_are_hidden() -> None:
    texts = examples()
    for row in range(len(texts.input_ids)):
        places = texts.hidden[texts.hidden[:, 0] == row][:, 1]
        tokens = int(texts.mask[row].sum()) - 2
        assert places.tolist() == [1 + index * tokens // min(8, tokens) for index in range(min(8, tokens))]


def test_graphs_give_the_source_s_logits(saved: tuple[Path, PreTrainedModel, Path], tmp_path: Path) -> None:
    source, bert, _ = saved
    ids_BT = tiny_tokens(2, 12)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 7:] = 0
    with torch.no_grad():
        expected = bert(ids_BT, attention_mask=mask_BT).logits[mask_BT.bool()].numpy()
    feeds = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": torch.zeros_like(ids_BT)}
    for found in graph_outputs(source, tmp_path, "logits", feeds):
        np.testing.assert_allclose(found[mask_BT.numpy().astype(bool)], expected, atol=1e-4)


def test_a_recipe_and_verbs_compress_it(saved: tuple[Path, PreTrainedModel, Path], tmp_path: Path) -> None:
    source, _, text = saved
    run, few = tmp_path / "run", training(4, batch_size=2, block_size=24, learning_rate=1e-3)
    recovery = {"loss": {"hidden_weight": 0.5, "relation_weight": 0.1}, "training": few}
    distill = {"kind": "distill", "student": "small", "loss": {"top_k": 8}, "training": few}
    gates = {"max_pseudo_perplexity_ratio": 3.0}
    carry_out(recipe(source, text, distill, {**PRUNE, "recovery": recovery}, gates=gates), run)
    sets = [f"calibration.{name}={value}" for name, value in CALIBRATION.items()]
    said = roots("quantize", "--run", run, "--int8", *(part for each in sets for part in ("--set", each)))
    # It reads no more than its context, and writes nothing.
    assert re.search(r"chosen for [\w-]+ with 64 tokens read\. This takes ", " ".join(said.split()))
    assert "pseudo-perplexity" in roots("report", run)
    metrics = metrics_of(run)
    assert metrics["task"] == "masked_lm"
    assert [gate["gate"] for gate in metrics["gates"]] == ["max_pseudo_perplexity_ratio"]
    baseline, distilled, pruned, quantized = metrics["stages"]
    assert distilled["notes"]["teacher_layers"] == [0]
    assert pruned["notes"]["recovery"]["losses"].keys() == {
        "cross_entropy",
        "divergence",
        "hidden",
        "relations",
    }
    assert quantized["bytes"] < pruned["bytes"] < distilled["bytes"] < baseline["bytes"]
    for stage in metrics["stages"]:
        assert stage["pseudo_perplexity"] == pytest.approx(stage["torch_pseudo_perplexity"], rel=0.05)
        assert stage["encode_tokens_per_second"]
    graph = run / "03-quantize"
    assert "pseudo-perplexity" in roots("eval", graph, "--eval-data", text, "--block-size", "32")
    assert "encode" in roots("bench", graph, "--context", "16", "--repeats", "1")
    assert "it reads a whole text at once" in roots("generate", graph, "--prompt", "x", code=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on-policy-ratio", "0.5"), "--on-policy-ratio"),
        (("--teacher-text-ratio", "0.5"), "--teacher-text-ratio"),
        (("--top-k", "1000"), "--top-k"),
    ],
)
def test_what_an_encoder_cannot_do_is_refused_by_its_option(
    saved: tuple[Path, PreTrainedModel, Path], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    source, _, text = saved
    refused = roots(
        "distill", "--teacher", source, "--data", text, "--run", tmp_path / "run", *TRAINING, *options, code=2
    )
    assert said in refused
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_a_mask_is_refused(
    saved: tuple[Path, PreTrainedModel, Path], tmp_path: Path
) -> None:
    _, bert, text = saved
    bert.save_pretrained(tmp_path / "source")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    refused = roots("eval", tmp_path / "source", "--eval-data", text, "--block-size", "32", code=2)
    assert "has no mask token" in refused


def test_a_student_must_predict_what_its_teacher_does(
    saved: tuple[Path, PreTrainedModel, Path], tmp_path: Path
) -> None:
    source, _, text = saved
    (tmp_path / "student.json").write_text(json.dumps(tiny_fields()))
    refused = roots(
        *("distill", "--teacher", source, "--student", tmp_path / "student.json", "--data", text),
        *("--run", tmp_path / "run", "--block-size", "32", *TRAINING),
        code=2,
    )
    assert "the student's head is of the kind 'lm', the teacher's 'masked_lm'" in refused
