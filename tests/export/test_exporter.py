"""The folder: what stands in it, that it is the same every time, and that it appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import pytest
import torch
from transformers import AutoTokenizer

from roots_compress.configs.export import ExportConfig
from roots_compress.errors import InputError, StageError
from roots_compress.export.exporter import DATA_NAME, export_checkpoint, save_graph
from roots_compress.export.graph import build_graph
from roots_compress.export.tasks import RootsExporterConfig, exporter_config
from roots_compress.models.config import RootsConfig
from roots_compress.runtime.onnx.graph_folder import GRAPH_NAME
from roots_compress.tasks.registry import CAUSAL_LM
from tests.export.serving import expected, left_padded_mask, open_bytes, relative_difference, serve
from tests.faults.commands import Commands
from tests.tiny import tiny_checkpoint, tiny_config, tiny_layer, tiny_model, tiny_tokens

DIGESTS = """
import json, sys
from pathlib import Path
from tests.export.test_exporter import digests
print(hash("model.onnx"))
print(json.dumps(digests(Path(sys.argv[1]))))
"""


def digests(folder: Path) -> dict[str, str]:
    """Export the tiny checkpoint to a folder, and return the hash of each file there."""
    export_checkpoint(tiny_checkpoint(), folder, ExportConfig())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_folder_holds_all_that_serving_needs(tmp_path: Path) -> None:
    report = export_checkpoint(tiny_checkpoint(), tmp_path / "onnx", ExportConfig())
    names = {path.name for path in (tmp_path / "onnx").iterdir()}
    assert {GRAPH_NAME, "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert report.graph_bytes == (tmp_path / "onnx" / GRAPH_NAME).stat().st_size
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["roots"]["model_type"] == "roots"
    assert len(AutoTokenizer.from_pretrained(tmp_path / "onnx")) == 300
    assert {path.name for path in tmp_path.iterdir()} == {"onnx"}


def test_the_bytes_do_not_depend_on_the_hash_seed(commands: Commands, tmp_path: Path) -> None:
    here = digests(tmp_path / "here")
    assert GRAPH_NAME in here
    name, *there = commands.python(DIGESTS, tmp_path / "other").splitlines()
    assert int(name) != hash(GRAPH_NAME), "both hash text alike"
    assert json.loads("".join(there)) == here


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    sizes = {}
    for tied in (True, False):
        checkpoint = tiny_checkpoint(tie_word_embeddings=tied)
        sizes[tied] = export_checkpoint(checkpoint, tmp_path / str(tied), ExportConfig()).graph_bytes
    assert abs(sizes[False] - sizes[True] - 300 * 32 * 4) < 256


def test_external_data_holds_the_weights_and_nothing_else(tmp_path: Path) -> None:
    model = tiny_model()
    graph = save_graph(build_graph(model), tmp_path, inline_limit=0)
    proto = onnx.load(graph, load_external_data=False)
    lengths = {
        entry.value: int(next(other.value for other in tensor.external_data if other.key == "length"))
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    }
    assert sum(lengths.values()) == (tmp_path / DATA_NAME).stat().st_size
    assert graph.stat().st_size < 64_000
    input_ids, mask = tiny_tokens(2, 12), left_padded_mask(2, 12)
    actual = serve(open_bytes(graph), input_ids, mask, [5])
    assert relative_difference(actual, expected(model, input_ids, mask), mask) < 1e-5


def test_a_folder_in_use_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="already holds something"):
        export_checkpoint(tiny_checkpoint(), tmp_path, ExportConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_weights_may_be_given_up_before_the_check(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    report = export_checkpoint(checkpoint, tmp_path / "a", ExportConfig(), release=True)
    assert all(case.passed for case in report.parity)
    assert {parameter.device.type for parameter in checkpoint.model.parameters()} == {"meta"}


def test_a_missed_tolerance_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="in the case 'one token, whole'"):
        export_checkpoint(tiny_checkpoint(), tmp_path / "onnx", ExportConfig(tolerance=1e-12))
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_not_a_number_is_caught(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.model.norm.weight[0] = torch.nan
    with pytest.raises(StageError, match="the checkpoint's own logits are NaN"):
        export_checkpoint(checkpoint, tmp_path / "onnx", ExportConfig())


def test_optimum_knows_the_task_and_makes_inputs_of_each_layers_shape() -> None:
    config = tiny_config(layers=[tiny_layer(), tiny_layer(num_key_value_heads=1, head_dim=6)])
    assert isinstance(config, RootsConfig)
    description = exporter_config(config, half=True)
    assert isinstance(description, RootsExporterConfig)
    assert description.task == CAUSAL_LM.optimum_name.removesuffix("-with-past")
    inputs = description.generate_dummy_inputs(
        framework="pt", batch_size=3, sequence_length=5, shortest=2, past_length=4
    )
    assert list(inputs) == list(description.inputs)
    assert inputs["past_key_values.1.value"].shape == (3, 1, 4, 6)
    assert inputs["past_key_values.0.key"].dtype == torch.float16
    assert inputs["attention_mask"].sum(dim=1).tolist() == [5, 3, 2]


def test_two_exports_of_one_model_are_equal_and_of_two_differ(tmp_path: Path) -> None:
    def digest(seed: int, name: str) -> str:
        export_checkpoint(tiny_checkpoint(seed), tmp_path / name, ExportConfig())
        return hashlib.sha256((tmp_path / name / GRAPH_NAME).read_bytes()).hexdigest()

    assert digest(0, "first") == digest(0, "again")
    assert digest(1, "other") != digest(0, "third")
