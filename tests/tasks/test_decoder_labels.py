"""Decoders that give labels or a score by the last token: classifiers, rerankers, reward models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from roots_compress.checkpoints.checkpoint import load_checkpoint, with_label_head
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.families.text_encoder import label_class
from roots_compress.models.ops.heads import ClassificationHead, ScoreHead, TextLabelHead
from tests.families.sources import each_family, save_source, source_config, source_model
from tests.tasks.commands import PRUNE, QUANTIZE, carry_out, graph_outputs, metrics_of, recipe, training
from tests.tasks.test_embedding import POOLING, TRANSFORMER, describe
from tests.tasks.test_text_encoders import REFUSED, padded_tokens
from tests.tiny import TEXT

NAMES = ("calm", "glad", "sad")
PAD = 2


def labelled(family: str, **changes: Any) -> PreTrainedModel:
    """Return a tiny model of a family's class for labels."""
    numbers = {"id2label": dict(enumerate(NAMES)), "label2id": {name: at for at, name in enumerate(NAMES)}}
    config = source_config(family, pad_token_id=PAD, **{**numbers, **changes})
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, label_class(FAMILIES[family]))(config).eval()
    return model


def tokens() -> dict[str, Tensor]:
    """Return two texts, the second padded with the token that transformers passes over."""
    ids_BT, mask_BT = padded_tokens()
    ids_BT = torch.where(ids_BT == PAD, 5, ids_BT).masked_fill(mask_BT == 0, PAD)
    return {"input_ids": ids_BT, "attention_mask": mask_BT}


@pytest.mark.parametrize("family", each_family())
def test_the_last_token_of_a_decoder_gives_the_source_s_logits(family: str, tmp_path: Path) -> None:
    if not hasattr(transformers, label_class(FAMILIES[family])):
        pytest.skip("transformers has no such class")
    model = labelled(family)
    source = save_source(model, tmp_path / "source")
    if family in REFUSED:
        with pytest.raises(InputError, match=f"which gives labels, .* layer 0 has {REFUSED[family]}"):
            inspect_source(source)
        return
    head = ClassificationHead(labels=3, names=NAMES, pooling="last", activation=None, bias=False)
    assert inspect_source(source).spec.head == head
    checkpoint = load_checkpoint(source)
    with torch.no_grad():
        expected_BL, found_BL = (each(**tokens()).logits for each in (model, checkpoint.model))
    torch.testing.assert_close(found_BL, expected_BL, atol=1e-5, rtol=0)
    for logits_BL in graph_outputs(source, tmp_path, "logits", tokens()):
        np.testing.assert_allclose(logits_BL, expected_BL.numpy(), atol=1e-5)
    write_back(checkpoint, family, tmp_path / "back")
    again = type(model).from_pretrained(tmp_path / "back").eval()
    assert tuple(again.config.id2label.values()) == NAMES
    with torch.no_grad():
        torch.testing.assert_close(again(**tokens()).logits, expected_BL)


def test_one_label_is_a_score(tmp_path: Path) -> None:
    """As of a reward model, or of a reranker."""
    model = labelled("qwen3", id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    source = save_source(model, tmp_path / "source")
    head = inspect_source(source).spec.head
    assert isinstance(head, ScoreHead)
    assert (head.pooling, head.activation, head.bias) == ("last", None, False)
    write_back(load_checkpoint(source), "qwen3", tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec.head == head


def test_a_family_without_such_a_class_is_not_written(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save_source(labelled("llama"), tmp_path / "source"))
    with pytest.raises(InputError, match="transformers has no class GraniteForSequenceClassification"):
        write_back(checkpoint, "granite", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_class_for_labels_of_tokens_is_refused(tmp_path: Path) -> None:
    source = save_source(labelled("llama"), tmp_path / "source")
    path = source / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "architectures": ["LlamaForTokenClassification"]}))
    with pytest.raises(InputError, match="LlamaForTokenClassification, which does not write text"):
        inspect_source(source)


def test_a_recipe_compresses_a_decoder_that_gives_labels(tmp_path: Path) -> None:
    source = save_source(labelled("qwen2"), tmp_path / "source")
    lines = [line for line in TEXT.splitlines() if line] * 12
    records = [{"text": f"{at} {line}", "label": NAMES[at % 3]} for at, line in enumerate(lines)]
    data, run = tmp_path / "labels.jsonl", tmp_path / "run"
    data.write_text("\n".join(map(json.dumps, records)))
    tune = {"kind": "tune", "training": training(6)}
    carry_out(recipe(source, data, tune, PRUNE, {**QUANTIZE, "products": "integer"}, windows=8), run)
    metrics = metrics_of(run)
    assert metrics["task"] == "classification"
    assert all(0 <= stage["accuracy"] <= 1 for stage in metrics["stages"])
    write_back(load_checkpoint(run / "02-prune" / "checkpoint"), "qwen2", tmp_path / "back")
    assert transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")


@pytest.mark.parametrize("kind", ["classification", "score"])
def test_a_model_that_makes_vectors_is_taught_labels_by_its_last_token(tmp_path: Path, kind: str) -> None:
    source = save_source(source_model("qwen3"), tmp_path / "source")
    describe(source, "mean", TRANSFORMER, POOLING)
    names = NAMES if kind == "classification" else ("score",)
    checkpoint = with_label_head(load_checkpoint(source), names, kind=kind, seed=0)
    head = checkpoint.model.config.spec.head
    assert isinstance(head, TextLabelHead)
    assert (head.kind, head.pooling, head.activation, head.bias) == (kind, "last", None, False)
    write_back(checkpoint, "qwen3", tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec == checkpoint.model.config.spec
