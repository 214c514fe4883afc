"""Sentence embeddings from a folder of sentence-transformers to a report, with a tiny BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import BertConfig, BertModel

from roots_compress.api import load
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.models.ops.heads import EmbeddingHead
from roots_compress.runtime.encoder import OnnxEncoder
from roots_compress.tasks.registry import task_of_graph
from tests.families.sources import encoder, save_source
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
from tests.tiny import TEXT, VOCAB_SIZE, tiny_tokenizer, tiny_tokens

TRANSFORMER, POOLING, NORMALIZE = (
    {"type": f"sentence_transformers.models.{kind}", "path": path}
    for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
)


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=2,
    )
    model: BertModel = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model


@pytest.fixture
def source(bert: BertModel, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    bert.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    describe(folder, "mean", TRANSFORMER, POOLING, NORMALIZE)
    return folder


def describe(folder: Path, pooling: str, *modules: dict[str, str]) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    name = {"mean": "mean_tokens", "first": "cls_token", "max": "max_tokens", "last": "lasttoken"}[pooling]
    modes = {"pooling_mode_mean_tokens": False, f"pooling_mode_{name}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def test_the_modules_of_a_folder_say_how_a_text_becomes_a_vector(source: Path) -> None:
    describe(source, "first", TRANSFORMER, POOLING)
    assert inspect_source(source).spec.head == EmbeddingHead(pooling="first", normalised=False)
    path = source / "1_Pooling" / "config.json"
    path.write_text("{}")
    assert inspect_source(source).spec.head == EmbeddingHead(pooling="mean", normalised=False)
    path.write_text(json.dumps({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}))
    assert inspect_source(source).spec.head == EmbeddingHead(pooling="first", normalised=False)
    path.write_text(json.dumps({"pooling_mode": ["cls"]}))
    assert inspect_source(source).spec.head == EmbeddingHead(pooling="first", normalised=False)
    path.write_text(json.dumps({"pooling_mode": ["cls", "mean"]}))
    with pytest.raises(InputError, match="pools by pooling_mode_cls_token, pooling_mode_mean_tokens"):
        inspect_source(source)
    describe(source, "max", TRANSFORMER, POOLING)
    with pytest.raises(InputError, match="pools by pooling_mode_max_tokens"):
        inspect_source(source)
    describe(source, "mean", TRANSFORMER, POOLING, {"type": "a.Dense", "path": "2_Dense"})
    with pytest.raises(InputError, match=r"has the modules Transformer, Pooling, a\.Dense"):
        inspect_source(source)
    describe(source, "mean", {**TRANSFORMER, "path": "0_Transformer"}, POOLING)
    for file in [path for path in source.iterdir() if path.is_file() and path.name != "modules.json"]:
        (source / "0_Transformer").mkdir(exist_ok=True)
        file.rename(source / "0_Transformer" / file.name)
    for named in (source, source / "0_Transformer"):
        with pytest.raises(InputError, match="the transformer is in the folder '0_Transformer'") as caught:
            inspect_source(named)
        assert caught.value.where == str(source / "modules.json")


def test_a_prompt_before_every_text_is_refused(source: Path) -> None:
    settings = source / "config_sentence_transformers.json"
    for name, prompts in (("ask", {"ask": "query: "}), ("ask", {})):
        settings.write_text(json.dumps({"prompts": prompts, "default_prompt_name": name}))
        with pytest.raises(InputError, match="default_prompt_name"):
            inspect_source(source)
    for default in (None, "none"):
        prompts = {"none": "", "ask": "query: "}
        settings.write_text(json.dumps({"prompts": prompts, "default_prompt_name": default}))
        inspect_source(source)


def test_the_longest_text_of_a_folder_holds_and_is_written_back(source: Path, tmp_path: Path) -> None:
    describe(source, "first", TRANSFORMER, POOLING)
    settings = source / "sentence_bert_config.json"
    settings.write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
    roots("export", source, "--out", tmp_path / "graph")
    assert OnnxEncoder.open(tmp_path / "graph" / "model.onnx", "sentence_embedding").max_context == 24
    write_back(load_checkpoint(source), "bert", tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec == inspect_source(source).spec
    for wrong in ({"max_seq_length": 0}, {"processing_kwargs": {"text": {"max_length": 7}}}):
        settings.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=list(wrong)[-1]):
            inspect_source(source)


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_albert_config.json", None])
def test_the_tokenizer_says_the_longest_text_where_no_module_does(name: str | None, source: Path) -> None:
    """sentence-transformers 6 writes it there alone; old versions named their file by the family."""
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 17}))
    if name is not None:
        (source / name).write_text(json.dumps({"transformer_task": "feature-extraction"}))
    assert inspect_source(source).spec.max_positions == 17
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 1e30}))
    assert inspect_source(source).spec.max_positions == 64
    if name is not None:
        (source / name).write_text(json.dumps({"max_seq_length": 9}))
        assert inspect_source(source).spec.max_positions == 9


def test_texts_are_made_lower_case_where_the_module_does_so(source: Path, tmp_path: Path) -> None:
    texts = ["The QUICK Fox", "the quick fox"]
    before = load(source, threads=1).encode(texts)
    (source / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    roots("export", source, "--out", tmp_path / "graph")
    for folder in (source, tmp_path / "graph"):
        upper, lower = load(folder, threads=1).encode(texts)
        assert np.array_equal(upper, lower)
        np.testing.assert_allclose(lower, before[1], atol=1e-5)
    assert not np.allclose(before[0], before[1], atol=1e-3)


@pytest.mark.parametrize("family", ["distilbert", "mpnet"])
def test_a_graph_takes_token_types_only_where_they_differ(family: str, tmp_path: Path) -> None:
    changes = next(each for each in FAMILIES[family].variants if "Model" in each["architectures"][0])
    save_source(encoder(family, dict(changes)), tmp_path / "source")
    roots("export", tmp_path / "source", "--out", tmp_path / "graph")
    inputs = ort.InferenceSession(tmp_path / "graph" / "model.onnx").get_inputs()
    assert [each.name for each in inputs] == ["input_ids", "attention_mask"]
    assert task_of_graph(tmp_path / "graph" / "model.onnx").name == "sentence_embedding"


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_checkpoint_and_graphs_give_the_source_s_vectors(
    bert: BertModel, source: Path, tmp_path: Path, pooling: str
) -> None:
    describe(source, pooling, TRANSFORMER, POOLING, NORMALIZE)
    ids_BT = tiny_tokens(2, 12)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 7:] = 0
    with torch.no_grad():
        hidden_BTW = bert(ids_BT, attention_mask=mask_BT).last_hidden_state
        mean_BW = (hidden_BTW * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
        expected_BW = torch.nn.functional.normalize(mean_BW if pooling == "mean" else hidden_BTW[:, 0])
        ours = load_checkpoint(source).model(ids_BT, attention_mask=mask_BT)
    torch.testing.assert_close(ours.last_hidden_state, expected_BW, atol=1e-5, rtol=0)
    feeds = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": torch.zeros_like(ids_BT)}
    for vectors_BW in graph_outputs(source, tmp_path, "sentence_embedding", feeds):
        np.testing.assert_allclose(vectors_BW, expected_BW.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [("a text", "one text was given"), ([], "there is no text"), (["a", "b\ud800"], "half a surrogate pair")],
)
def test_what_is_no_list_of_texts_is_refused(source: Path, texts: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        load(source, threads=1).encode(texts)


def test_a_recipe_compresses_an_encoder_and_reports_its_likeness(source: Path, tmp_path: Path) -> None:
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("\n\n".join([TEXT] * 40))
    recovery = {"loss": {"hidden_weight": 0.1}, "training": training(15)}
    prune = {**PRUNE, "head_ratio": 0.25, "recovery": recovery}
    document = recipe(source, text, prune, QUANTIZE, gates={"min_cosine": 0.5})
    carry_out(document, run)
    metrics = metrics_of(run)
    assert metrics["task"] == "sentence_embedding"
    baseline, pruned, quantized = metrics["stages"]
    assert baseline["cosine"] == pytest.approx(1, abs=1e-6)
    assert pruned["notes"]["recovery"]["losses"].keys() == {"divergence", "hidden"}
    assert 0.8 <= pruned["cosine"] < 1
    assert abs(quantized["cosine"] - pruned["cosine"]) < 0.02
    assert "encode_tokens_per_second" in quantized
    assert "cosine" in roots("report", run)
    generated = roots("generate", run / "02-quantize", "--prompt", "x", code=2)
    assert "it reads a whole text at once and generates none" in generated
    assert "is not known of a model by itself" in roots(
        "eval", run / "02-quantize", "--eval-data", text, "--block-size", "32", code=2
    )
    other = {**document, "gates": {"max_perplexity_ratio": 1.1}}
    refused = carry_out(other, tmp_path / "other", code=2)
    assert "max_perplexity_ratio" in refused
    assert "models for sentence_embedding do not have" in refused


def test_what_needs_next_token_predictions_is_refused_by_its_option(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for options, named in (
        (("prune", source, "--layer-ratio", "0.5"), "--layer-ratio"),
        (("prune", source, "--residual-ratio", "0.25"), "--residual-ratio"),
        (("prune", source, "--ratio", "0.25", "--per-layer"), "--per-layer"),
        (("prune", source, "--ratio", "0.25", "--score", "taylor"), "--score"),
        (("distill", "--teacher", source, "--train-block-size", "32", "--top-k", "8"), "--top-k"),
        (("distill", "--teacher", source, "--divergence-weight", "0"), "--divergence-weight"),
        (("train", source, "--train-block-size", "32"), "no labels for sentence_embedding"),
    ):
        assert named in roots(*options, "--run", run, "--block-size", "32", code=2)
    assert not run.exists()
