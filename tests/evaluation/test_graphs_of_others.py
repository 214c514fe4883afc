"""Graphs that another program exported lie beside the configuration of their own family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from transformers import PreTrainedModel

from roots_compress.api import evaluate
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import InputError
from roots_compress.evaluation.speed import measure_speed
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.encoder import OnnxEncoder
from roots_compress.runtime.onnx.graph_folder import find_graph, holds_graph
from roots_compress.runtime.text import load_tokenizer, load_wishes
from roots_compress.tasks.registry import task_of_graph
from tests.families.sources import encoder, save_source, seq2seq, source_model
from tests.tiny import TEXT


def exported(model: PreTrainedModel, folder: Path) -> tuple[Path, Path]:
    """Return a checkpoint and its graph, beside which the checkpoint's own configuration lies."""
    source, graph = save_source(model, folder / "source"), folder / "graph"
    export_checkpoint(load_checkpoint(source), graph, ExportConfig(portable=True))
    shutil.copyfile(source / "config.json", graph / "config.json")
    return source, graph


def quality(path: Path, data: Path) -> dict[str, float]:
    return evaluate(path, data={"eval": [str(data)]}, evaluation={"block_size": 32, "windows": 4}).quality


def as_on_the_hub(source: Path, graph: Path) -> Path:
    """Put a graph where repositories keep it: without files of its own, in a folder beside the weights."""
    (source / "onnx").mkdir()
    return graph.joinpath("model.onnx").rename(source / "onnx" / "model.onnx")


def test_a_graph_beside_a_checkpoint_is_served_by_its_files_and_does_not_hide_it(tmp_path: Path) -> None:
    source, graph = exported(source_model("llama"), tmp_path)
    data = tmp_path / "text.txt"
    data.write_text(TEXT * 4)
    alone = quality(source, data)
    named = as_on_the_hub(source, graph)
    assert not holds_graph(source)
    assert quality(source, data) == alone
    assert quality(named, data) == pytest.approx(alone, rel=1e-5)
    (source / "model.safetensors").unlink()
    assert holds_graph(source)
    assert quality(source, data) == pytest.approx(alone, rel=1e-5)
    speeds = measure_speed({"graph": source}, contexts=(8,), decode_tokens=2, repeats=1, threads=1)
    assert speeds["graph"]["decode"][0].median > 0
    assert load_wishes(source, load_tokenizer(source), 300).stop_tokens == (1,)


def test_a_graph_is_read_with_the_tokens_that_its_family_s_class_opens_a_text_with(tmp_path: Path) -> None:
    model = source_model("gpt2", bos_token_id=0, eos_token_id=0)
    source = save_source(model, tmp_path / "source")
    # GPT-2's own repository says no more than this of its tokenizer.
    (source / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    document = json.loads((source / "tokenizer.json").read_text())
    (source / "tokenizer.json").write_text(json.dumps({**document, "post_processor": None}))
    graph = tmp_path / "graph"
    export_checkpoint(load_checkpoint(source), graph, ExportConfig(portable=True))
    data = tmp_path / "text.txt"
    data.write_text(TEXT * 4)
    assert quality(as_on_the_hub(source, graph), data) == pytest.approx(quality(source, data), rel=1e-5)


def test_a_folder_of_onnxruntime_genai_is_read_by_its_own_file(tmp_path: Path) -> None:
    source, graph = exported(source_model("llama"), tmp_path)
    (graph / "config.json").unlink()
    (graph / "generation_config.json").unlink(missing_ok=True)
    path = graph / "genai_config.json"
    document = json.loads(path.read_text())
    document["model"]["eos_token_id"] = [1, 7]
    document["search"]["repetition_penalty"] = 1.5
    path.write_text(json.dumps(document))
    model = onnx.load(graph / "model.onnx")
    for value in (*model.graph.input, *model.graph.output):
        if value.name.endswith((".key", ".value")):
            value.type.tensor_type.shape.dim[3].dim_param = "kv_cache_dim"
    onnx.save(model, graph / "model.onnx")
    data = tmp_path / "text.txt"
    data.write_text(TEXT * 4)
    assert quality(graph, data) == pytest.approx(quality(source, data), rel=1e-5)
    wishes = load_wishes(graph, load_tokenizer(graph), 300)
    assert wishes.stop_tokens == (1, 7)
    assert wishes.settings.repetition_penalty == 1.5
    del document["model"]["context_length"]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"model\.context_length is not a whole number") as refused:
        quality(graph, data)
    assert refused.value.where == str(path)


def test_optimum_s_decoder_is_told_whether_it_has_caches(tmp_path: Path) -> None:
    source, graph = exported(seq2seq("t5", {}), tmp_path)
    path = graph / "decoder_model_merged.onnx"
    model = onnx.load(path)
    given = "use_cache_branch"
    model.graph.input.append(helper.make_tensor_value_info(given, TensorProto.BOOL, [1]))
    for node in model.graph.node:
        node.output[:] = ["own_logits" if name == "logits" else name for name in node.output]
    for name, value in (("nothing", np.array([0])), ("wrong", np.array(np.nan, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["past_key_values.0.decoder.key"], ["held"], start=2, end=3),
            helper.make_node("Greater", ["held", "nothing"], ["is_held"]),
            helper.make_node("Equal", ["is_held", given], ["is_told"]),
            helper.make_node("Where", ["is_told", "own_logits", "wrong"], ["logits"]),
        ]
    )
    for value in model.graph.output:
        if value.name != "logits":  # An operator that has two branches says no shapes.
            for axis, size in enumerate(value.type.tensor_type.shape.dim):
                size.dim_param = f"{value.name}_{axis}"
    onnx.save(model, path)
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(json.dumps({"source": f"a fox {n}", "target": f"{n} dogs"}) for n in range(5)))
    assert quality(graph, data) == pytest.approx(quality(source, data), rel=1e-5)


def test_a_graph_of_another_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_quantized.onnx").write_bytes(b"")
    with pytest.raises(InputError) as refused:
        find_graph(tmp_path)
    assert refused.value.remedy == f"Name the graph itself, such as {tmp_path / 'model_quantized.onnx'}."


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
