"""Graphs that another program exported lie beside the configuration of their own family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from roots_compress.api import evaluate
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.encoder import OnnxEncoder
from roots_compress.tasks.registry import task_of_graph
from tests.families.sources import encoder, save_source, source_model
from tests.tiny import TEXT


def exported(model: PreTrainedModel, folder: Path) -> tuple[Path, Path]:
    """Return a checkpoint and its graph, beside which the checkpoint's own configuration lies."""
    source, graph = save_source(model, folder / "source"), folder / "graph"
    export_checkpoint(load_checkpoint(source), graph, ExportConfig(portable=True))
    shutil.copyfile(source / "config.json", graph / "config.json")
    return source, graph


def quality(path: Path, data: Path) -> dict[str, float]:
    return evaluate(path, data={"eval": [str(data)]}, evaluation={"block_size": 32, "windows": 4}).quality


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_decoder_is_served_by_its_family_s_names_of_sizes(family: str, tmp_path: Path) -> None:
    source, graph = exported(source_model(family), tmp_path)
    data = tmp_path / "text.txt"
    data.write_text(TEXT * 4)
    assert quality(graph, data) == pytest.approx(quality(source, data), rel=1e-5)


def test_labels_are_those_of_the_configuration(tmp_path: Path) -> None:
    form: dict[str, Any] = {"architectures": ["BertForSequenceClassification"], "num_labels": 3}
    source, graph = exported(encoder("bert", form), tmp_path)
    data = tmp_path / "labels.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"a fox {n}", "label": n % 3}) for n in range(9)))
    assert quality(graph, data) == pytest.approx(quality(source, data))


def test_what_a_graph_is_for_and_its_longest_text_are_those_of_its_family(tmp_path: Path) -> None:
    form = {"architectures": ["RobertaForSequenceClassification"], "num_labels": 1, "pad_token_id": 1}
    _, graph = exported(encoder("roberta", form), tmp_path)
    assert task_of_graph(graph / "model.onnx").head_kind == "score"
    assert OnnxEncoder.open(graph / "model.onnx", "logits").max_context == 62
