"""What `verify` accepts, and that it misses no change to a run, a stage or a graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.errors import InputError
from roots_compress.pipeline.verify import verify_folder
from roots_compress.results import RunMetrics
from roots_compress.run.keys import canonical_json, with_sha256
from roots_compress.run.manifest import record_file
from roots_compress.run.run_folder import RunFolder
from tests.run.stubs import MACHINE, make_key, make_result

Chain = tuple[Recipe, Path, RunMetrics]


def faults(folder: Path) -> list[str]:
    return [f"{finding.subject}: {fault}" for finding in verify_folder(folder) for fault in finding.faults]


@pytest.fixture
def run(chain: Chain, tmp_path: Path) -> Path:
    shutil.copytree(chain[1], tmp_path / "run")
    return tmp_path / "run"


def with_a_fitting_hash(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a document that carries its hash as one could who knows how."""
    document = json.loads(path.read_text())["content"]
    change(document)
    path.write_text(canonical_json(with_sha256(document)) + "\n")


def test_an_untouched_run_passes(chain: Chain) -> None:
    findings = list(verify_folder(chain[1]))
    assert [finding.subject for finding in findings] == [
        "recipe and figures",
        "00-baseline",
        "01-distill",
        "02-prune",
        "03-quantize",
    ]
    assert [finding.faults for finding in findings if finding.faults] == []
    assert all("graph agrees with the checkpoint within" in finding.checked for finding in findings[1:])


@pytest.mark.parametrize(
    "name",
    [".roots-run.json", "recipe.yaml", "resolved.json", "metrics.json", "report.html", "manifest.json"],
)
def test_a_change_to_what_describes_a_run_is_found(run: Path, name: str) -> None:
    path = run / name
    path.write_bytes(path.read_bytes() + b" ")
    assert any(f"{name} changed since" in fault for fault in faults(run))


def test_a_removed_last_stage_is_found(run: Path) -> None:
    shutil.rmtree(run / "03-quantize")
    assert any("the recipe has 4 rows, metrics.json 4, and 3 stages" in fault for fault in faults(run))


def test_an_unfinished_run_says_so(run: Path) -> None:
    (run / "manifest.json").unlink()
    assert faults(run) == ["recipe and figures: the run is not finished, or its manifest.json was removed"]


def test_figures_that_are_not_the_stages_own_are_found_under_a_fitting_hash(run: Path) -> None:
    document = json.loads((run / "metrics.json").read_text())
    document["stages"][3]["perplexity"] -= 1
    (run / "metrics.json").write_text(json.dumps(document))

    def adopt(content: dict[str, object]) -> None:
        assert isinstance(content["files"], dict)
        record = record_file(run / "metrics.json")
        content["files"]["metrics.json"] = {"bytes": record.bytes, "sha256": record.sha256}

    with_a_fitting_hash(run / "manifest.json", adopt)
    assert faults(run) == [
        "recipe and figures: metrics.json has other figures for 03-quantize than the stage itself"
    ]


def test_a_recipe_that_did_not_make_the_stages_is_found(run: Path) -> None:
    document = json.loads((run / "resolved.json").read_text())
    document["stages"][2]["ratio"] = 0.5
    (run / "resolved.json").write_text(json.dumps(document))
    assert "recipe and figures: 02-prune was made with other settings than the recipe's" in faults(run)


@pytest.mark.parametrize("files", ["[[1, 2]]", "[]", "null", "{}", '{"metrics.json": 1e400}'])
def test_a_manifest_edited_by_hand_is_found(files: str, run: Path) -> None:
    (run / "manifest.json").write_text(f'{{"content": {{"files": {files}}}, "sha256": ""}}')
    assert any(fault.startswith("recipe and figures: ") for fault in faults(run))


def test_damage_to_a_stage_is_found_through_the_stage_and_through_its_graph(run: Path) -> None:
    stage = run / "03-quantize"
    assert faults(stage) == faults(stage / "onnx") == []
    tokenizer = stage / "onnx" / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes()[:-1] + b" ")
    expected = ["03-quantize: onnx/tokenizer.json changed since it was committed"]
    assert faults(stage) == faults(stage / "onnx") == expected
    (stage / "checkpoint" / "config.json").unlink()
    assert faults(stage) == ["03-quantize: checkpoint/config.json is missing"]


def test_a_stage_alone_is_held_to_the_tolerance_of_its_own_run(chain: Chain, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        key = make_key(None, export=ExportConfig(tolerance=1e-12).model_dump(mode="json"))
        workspace = run.begin(0, "baseline", "baseline", key)
        for part in ("onnx", "checkpoint"):
            shutil.copytree(chain[1] / "00-baseline" / part, tmp_path / "as" / part)
        shutil.copytree(tmp_path / "as" / "onnx", workspace.onnx, dirs_exist_ok=True)
        shutil.copytree(tmp_path / "as" / "checkpoint", workspace.checkpoint, dirs_exist_ok=True)
        stage = workspace.commit(make_result(0, "baseline", "baseline"), machine=MACHINE)
    assert "the graph's logits differ from the checkpoint's" in faults(stage.path)[0]
    assert faults(tmp_path / "as") == []


def damage(graph: Path) -> None:
    model = onnx.load(graph)
    matrix = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    matrix.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(matrix), matrix.name))
    onnx.save(model, graph)


def test_a_graph_alone_is_held_against_the_checkpoint_beside_it(chain: Chain, tmp_path: Path) -> None:
    for part in ("onnx", "checkpoint"):
        shutil.copytree(chain[1] / "01-distill" / part, tmp_path / "mine" / part)
    (finding,) = verify_folder(tmp_path / "mine")
    assert "agrees with the checkpoint" in finding.checked
    damage(tmp_path / "mine" / "onnx" / "model.onnx")
    assert "the graph's logits differ from the checkpoint's" in faults(tmp_path / "mine")[0]


def test_a_graph_without_a_checkpoint_must_run(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain[1] / "01-distill" / "onnx", tmp_path / "graph")
    (finding,) = verify_folder(tmp_path / "graph")
    assert "no checkpoint beside it" in finding.checked
    graph = tmp_path / "graph" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    assert len(faults(tmp_path / "graph")) == 1


def test_a_folder_that_holds_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing here that can be verified"):
        list(verify_folder(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        list(verify_folder(tmp_path / "absent"))


def test_the_verb_lists_what_it_finds_and_leaves_with_1(run: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["verify", str(run)])
    assert result.exit_code == 0, result.output
    assert "  02-prune: " in result.stdout
    assert result.stdout.endswith(f"{run}: everything is as it was written\n")
    (run / "02-prune" / "metrics.json").write_text("{}")
    result = runner.invoke(app, ["verify", str(run)])
    assert result.exit_code == 1
    assert "! 02-prune: metrics.json has 2 bytes" in result.stdout
    assert "! 03-quantize: no usable stage 02 before it" in result.stdout
