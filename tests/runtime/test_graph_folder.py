"""Every broken or hostile graph folder is refused with one clear error, before ONNX Runtime opens it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.onnx.graph_folder import find_graph, graph_files
from tests.runtime.graphs import history_model, random_weights, write_graph


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "graph", history_model(random_weights()), external=True)


def relocate(folder: Path, **entries: str) -> None:
    """Change where the graph's first external tensor says that its data lies."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxEngine.load(folder, threads=1, provider="cpu")


def test_the_files_are_the_graph_and_its_data(folder: Path) -> None:
    assert graph_files(folder) == (folder / "model.onnx", folder / "model.onnx.data")


def test_a_file_named_twice_differently_counts_once(folder: Path) -> None:
    relocate(folder, location="./model.onnx.data")
    assert graph_files(folder) == (folder / "model.onnx", folder / "model.onnx.data")


def test_missing_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "no such folder")


def test_a_stage_that_a_run_does_not_have_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    for name in ("00-baseline", "01-quantize"):
        (tmp_path / name / "onnx").mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        find_graph(tmp_path / "02-quantize")
    assert refused.value.remedy == f"Name a stage of {tmp_path}: 00-baseline, 01-quantize."


def test_folder_without_a_graph(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"holds no model\.onnx")


def test_a_pipe_for_a_graph_is_refused_and_does_not_hang(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    assert_refused(folder, r"holds no model\.onnx")


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_truncated_graph(folder: Path, kept: int) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:kept])
    assert_refused(folder, "truncated|empty")


def test_random_bytes_for_a_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\x7fELF" * 100)
    assert_refused(folder, "truncated or is not ONNX")


def test_missing_external_data(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    assert_refused(folder, "'model.onnx.data' is missing")


def test_truncated_external_data(folder: Path) -> None:
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    assert_refused(folder, "is truncated")


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "a/../../secret", "..\\secret", "C:\\secret", "."]
)
def test_external_data_outside_the_folder(folder: Path, location: str) -> None:
    (folder.parent / "secret").write_bytes(b"\0" * 10_000)
    relocate(folder, location=location)
    assert_refused(folder, "lies outside")


@pytest.mark.parametrize("entries", [{"offset": "-1"}, {"length": "-5"}])
def test_negative_external_extent(folder: Path, entries: dict[str, str]) -> None:
    relocate(folder, **entries)
    assert_refused(folder, "negative")


def test_petabyte_external_extent(folder: Path) -> None:
    relocate(folder, length=str(10**15))
    assert_refused(folder, "is truncated")


def test_unreadable_external_extent(folder: Path) -> None:
    relocate(folder, offset="zero")
    assert_refused(folder, "without a readable location")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_linked_external_data(folder: Path, link: str) -> None:
    data, outside = folder / "model.onnx.data", folder.parent / "outside"
    data.rename(outside)
    getattr(data, link)(outside)
    assert_refused(folder, "is a link")


def test_external_data_through_a_linked_directory(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "model.onnx.data").rename(outside / "data")
    (folder / "inside").symlink_to(outside)
    relocate(folder, location="inside/data")
    assert_refused(folder, "is a link")


def test_external_data_hidden_in_a_subgraph(folder: Path) -> None:
    """Tensors are checked wherever they stand, not only among the initializers."""
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="/etc/passwd")
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=hidden)], "branch", [], [])
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert_refused(folder, "lies outside")


def test_missing_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert_refused(folder, r"holds no config\.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"vocab_size": "7", "max_position_embeddings": 8}'])
def test_unreadable_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert_refused(folder, "vocab_size is not a whole number|not valid JSON|object is needed")


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({"embeddings": {"vocabulary": 7, "width": 4}, "max_positions": 8, "stacks": 3}, "stacks"),
        ({"embeddings": {"vocabulary": 7}, "vocab_size": 7}, "vocab_size is a key of version 1"),
        (3, "roots is 3; it must be an object"),
    ],
)
def test_damaged_specification(folder: Path, ours: object, message: str) -> None:
    (folder / "config.json").write_text(json.dumps({"roots": ours}), encoding="utf-8")
    assert_refused(folder, f"the model's specification is damaged: .*{message}")


def test_foreign_input_names(folder: Path) -> None:
    model = history_model(random_weights())
    model.graph.input[1].name = "padding"
    for node in model.graph.node:
        node.input[:] = ["padding" if name == "attention_mask" else name for name in node.input]
    write_graph(folder, model)
    assert_refused(folder, "inputs input_ids, padding, position_ids")


def test_fixed_batch(folder: Path) -> None:
    model = history_model(random_weights())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    write_graph(folder, model)
    assert_refused(folder, "input_ids of the graph has a type or shape")


def test_cache_of_unknown_width(folder: Path) -> None:
    model = history_model(random_weights())
    model.graph.input[3].type.tensor_type.shape.dim[3].dim_param = "any"
    write_graph(folder, model)
    assert_refused(folder, r"past_key_values\.0\.key of the graph has a type or shape")


def test_an_opset_the_runtime_lacks(folder: Path) -> None:
    model = history_model(random_weights())
    model.opset_import[0].version = 999
    write_graph(folder, model)
    assert_refused(folder, "cannot open the graph")


def test_an_operator_the_runtime_lacks(folder: Path) -> None:
    model = history_model(random_weights())
    model.graph.node[0].domain = "nobody.knows"
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))
    write_graph(folder, model)
    assert_refused(folder, "cannot open the graph")


def test_cuda_where_there_is_none(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in OnnxEngine.load(folder).providers:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="CUDA was asked for"):
        OnnxEngine.load(folder, provider="cuda")
    assert capfd.readouterr().err == ""


def test_auto_takes_what_the_machine_has(folder: Path) -> None:
    engine = OnnxEngine.load(folder, threads=1)
    assert engine.providers[-1] == "CPUExecutionProvider"
    assert set(engine.providers) <= set(onnxruntime.get_available_providers())


def test_config_values_are_the_engine_s(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    engine = OnnxEngine.load(folder, threads=1, provider="cpu")
    assert (engine.vocab_size, engine.max_context) == tuple(config.values())
