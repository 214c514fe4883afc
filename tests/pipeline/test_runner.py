"""A whole run, tiny but real: every stage, the figures it must report, and what a second try does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.fingerprint import READ_SUFFIXES
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.cli.app import app
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.recipe.growth import evaluation_request, grow
from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.training import TrainingConfig
from roots_compress.errors import GateMissedError, InputError, RootsError, StageError
from roots_compress.events import Events
from roots_compress.export.exporter import ExportReport, export_checkpoint
from roots_compress.io import disk
from roots_compress.io.disk import file_sha256
from roots_compress.pipeline import preflight, stage_runner
from roots_compress.pipeline.preflight import Setting, prepare, prepare_evaluation
from roots_compress.pipeline.runner import describe, plan_recipe, run_recipe
from roots_compress.pipeline.steps import keys_of, steps_of
from roots_compress.results import RunMetrics
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import read_metrics, read_stages
from roots_compress.runtime.onnx.graph_folder import find_graph
from roots_compress.system.threads import default_threads
from tests.chains import CALIBRATION, DISTILL, EVALUATION, PRUNE, QUANTIZE, TRAIN, TRAINING, carry_out, recipe
from tests.faults.commands import Commands


def test_metrics_hold_every_figure_of_every_stage(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    _, folder, _ = chain
    document = json.loads((folder / "metrics.json").read_text())
    assert document["schema"] == 1
    assert [row["kind"] for row in document["stages"]] == ["baseline", "distill", "prune", "quantize"]
    for row in document["stages"]:
        for key in (
            "parameters",
            "bytes",
            "perplexity",
            "bits_per_byte",
            "torch_perplexity",
            "peak_rss_bytes",
        ):
            assert row[key] > 0, key
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second"):
            assert [set(speed) for speed in row[key]] == [{"context", "median", "low", "high", "repeats"}]
        assert (folder / row["onnx"]).is_file()
        assert row["seconds"] > 0
    (gate,) = document["gates"]
    assert (gate["gate"], gate["limit"], gate["passed"]) == ("max_perplexity_ratio", 50.0, True)
    assert (gate["stage"], gate["against"]) == ("quantize", "baseline")
    assert gate["value"] == pytest.approx(1, abs=0.9)
    assert document["machine"]["versions"]["torch"]
    assert document["protocol"]["threads"] > 0


def test_rows_hold_what_a_report_shows(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    _, _, metrics = chain
    baseline, distilled, pruned, quantized = metrics.stages
    for row in metrics.stages:
        assert sum(row.metrics.bytes_by_group.values()) == row.metrics.bytes
        assert [sample.prompt for sample in row.samples] == [sample.prompt for sample in baseline.samples]
        low, high = row.metrics.intervals["perplexity"]
        assert low < row.metrics.quality["perplexity"] < high
    assert all(sample.text for sample in baseline.samples)
    assert baseline.metrics.quality["kl_mean"] < 1e-5 < quantized.metrics.quality["kl_mean"]
    assert baseline.metrics.quality["same_top"] > 0.99 > quantized.metrics.quality["same_top"]
    for row in (distilled, pruned, quantized):
        low, high = row.metrics.intervals["perplexity_ratio"]
        assert low <= row.metrics.quality["perplexity"] / baseline.metrics.quality["perplexity"] <= high
    assert "perplexity_ratio" not in baseline.metrics.intervals
    for row in (baseline, distilled):
        assert row.curves["loss"][-1].value == row.notes["loss"]
    blocks = {"self_attn", "mlp"}
    assert {error.name.rpartition(".")[2] for error in pruned.layer_errors} <= blocks
    matrices = {error.name: error.error for error in quantized.layer_errors}
    assert "model.layers.0.mlp.down_proj" in matrices
    assert all(0 < error < 0.1 for error in matrices.values())
    worst = quantized.notes["largest_relative_errors"]
    assert isinstance(worst, dict)
    assert {name: matrices[name] ** 0.5 for name in worst} == pytest.approx(worst)


def test_each_stage_is_smaller_than_the_one_before(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    _, _, metrics = chain
    sizes = [stage.metrics.bytes for stage in metrics.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    counts = [stage.metrics.parameters for stage in metrics.stages]
    assert counts[0] > counts[1] > counts[2] == counts[3]


def test_graph_and_checkpoint_agree_on_perplexity(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    _, _, metrics = chain
    for stage in metrics.stages:
        quality = stage.metrics.quality
        assert quality["perplexity"] == pytest.approx(quality["torch_perplexity"], rel=0.01)


def test_every_checkpoint_loads_through_transformers(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    _, folder, metrics = chain
    for stage in metrics.stages:
        model = AutoModelForCausalLM.from_pretrained(folder / Path(stage.onnx).parts[0] / "checkpoint")
        assert model.config.model_type == "roots"


def test_the_run_explains_itself(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    wanted, folder, _ = chain
    assert "quantize" in (folder / "report.html").read_text()
    assert parse_recipe(json.loads((folder / "resolved.json").read_text())) == wanted
    manifest = json.loads((folder / "02-prune" / "manifest.json").read_text())["content"]
    assert "checkpoint/model.safetensors" in manifest["files"]
    assert manifest["machine"]["instruction_set"]


def test_nothing_is_left_lying_about(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    _, folder, _ = chain
    assert not [path for path in folder.iterdir() if path.name.endswith((".partial", ".retired"))]


def test_a_finished_stage_is_reused_and_a_changed_one_redone(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    _, original, _ = chain
    folder = tmp_path / "again"
    shutil.copytree(original, folder)
    stamps = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}
    changed = recipe(text_file, TRAIN, DISTILL, {**PRUNE, "ratio": 0.5}, QUANTIZE)
    plan = list(plan_recipe(prepare(changed, folder), folder))
    assert [line.split(": ", 1)[1][:8] for line in plan] == ["finished", "finished", "to be ma", "to be ma"]
    assert "stage.ratio: 0.25 -> 0.5" in plan[2]
    carry_out(changed, folder)
    after = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}
    assert [name for name in sorted(after) if after[name] != stamps[name]] == ["02-prune", "03-quantize"]


def test_a_key_holds_what_a_cache_keeps_and_not_where(text_file: Path, tmp_path: Path) -> None:
    def keys(cache: str | None, top_k: int) -> list[str]:
        loss = {"top_k": top_k, "cache": cache}
        distill = {**DISTILL, "loss": loss}
        prune = {**PRUNE, "recovery": {"loss": loss, "training": TRAINING}}
        setting = prepare(recipe(text_file, TRAIN, distill, prune), tmp_path / "run")
        return [key.sha256 for _, key in keys_of(setting)]

    assert keys(None, 8) == keys("here", 8) == keys("there", 8)
    assert [a == b for a, b in zip(keys(None, 8), keys(None, 9), strict=True)] == [True, False, False]


def test_a_key_leaves_out_what_changes_no_result(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    _, original, _ = chain
    students = [tmp_path / place for place in ("one", "two")]
    for student in students:
        shutil.copytree(original / "01-distill" / "checkpoint", student)

    def keys(student: Path, threads: int | None, every: int) -> list[str]:
        training = {**TRAINING, "checkpoint_every": every}
        stages = {**TRAIN, "training": training}, {**DISTILL, "student": str(student), "training": training}
        asked = recipe(text_file, *stages, evaluation={**EVALUATION, "threads": threads})
        return [key.sha256 for _, key in keys_of(prepare(asked, tmp_path / "run"))]

    assert keys(students[0], None, 2) == keys(students[1], default_threads(), 5)
    config = students[1] / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    assert [a == b for a, b in zip(*(keys(each, None, 2) for each in students), strict=True)] == [True, False]


def test_a_stage_is_known_by_a_key_that_holds_what_was_keyed_once(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path
) -> None:
    stage = read_stages(chain[1])[0][1]

    def made(student: str, held: dict[str, Any], **training: int) -> bool:
        wanted = {**DISTILL, "student": student, "training": TRAINING | training}
        step = steps_of(recipe(text_file, TRAIN, wanted))[1]
        settings = {**step.settings, "training": TrainingConfig.model_validate(TRAINING).model_dump(), **held}
        for name in TrainingConfig.unkeyed - {"checkpoint_every"}:
            del settings["training"][name]
        key = replace(stage.key, ingredients={**stage.key.ingredients, "stage": settings})
        return step.made(replace(stage, manifest=replace(stage.manifest, key=key)))

    assert made("small", {})
    assert made("small", {}, checkpoint_every=5)
    assert made("gone", {"student": "/moved/gone"})
    assert not made("small", {}, steps=5)
    assert not made("small", {"student": "tiny"})
    assert not made("gone", {"student": "small"})


REMOVED = ("02-prune", "03-quantize")


def test_a_plan_says_that_a_stage_has_changed_on_the_disk(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(chain[1], folder)
    weights = folder / "02-prune" / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 16
    weights.write_bytes(content)
    plan = list(plan_recipe(prepare(chain[0], folder), folder))
    assert [line.split(": ", 1)[1][:8] for line in plan] == ["finished", "finished", "to be ma", "finished"]
    assert "checkpoint/model.safetensors changed since it was committed" in plan[2]


def test_a_shorter_recipe_removes_the_stages_it_no_longer_has(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shorter"
    shutil.copytree(chain[1], folder)
    shorter = recipe(text_file, TRAIN, DISTILL)
    plan = list(plan_recipe(prepare(shorter, folder), folder))
    assert plan[2:] == [f"{name}: to be removed: the recipe does not have it" for name in REMOVED]
    metrics = carry_out(shorter, folder)
    assert [stage.kind for stage in metrics.stages] == ["baseline", "distill"]
    assert sorted(path.name for path in folder.glob("0*")) == ["00-baseline", "01-distill"]


def test_an_imported_model_is_the_baseline_and_verbs_make_a_recipe_grow(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    teacher, folder = chain[1] / "00-baseline" / "checkpoint", tmp_path / "current"
    settings = {"data": {"train": [text_file], "eval_fraction": 0.25}, "evaluation": EVALUATION}
    first = grow(folder, PRUNE, source=teacher, fresh=False, settings=settings)
    carry_out(first, folder)
    second = grow(folder, QUANTIZE, source=None, fresh=False, settings={})
    metrics = carry_out(second, folder)
    assert [stage.kind for stage in metrics.stages] == ["baseline", "prune", "quantize"]
    # The same first command again goes on with the run rather than starting another.
    assert grow(folder, PRUNE, source=teacher, fresh=False, settings=settings) == second
    with pytest.raises(InputError, match="in use"):
        grow(folder, DISTILL, source=tmp_path, fresh=False, settings={})
    with pytest.raises(InputError, match="ends in quantized weights") as caught:
        grow(folder, PRUNE, source=None, fresh=False, settings={})
    assert caught.value.remedy is not None
    assert f"roots-compress prune {folder / '01-prune' / 'checkpoint'} --run" in caught.value.remedy
    with pytest.raises(InputError, match="does not exist"):
        grow(folder, PRUNE, source=tmp_path / "absent", fresh=False, settings={})


def test_what_is_named_in_place_of_another_is_told_from_it(
    chain: tuple[Recipe, Path, RunMetrics],
) -> None:
    run = chain[1]
    with pytest.raises(InputError) as of_run:
        inspect_source(run)
    assert of_run.value.remedy == f"Name {run / '02-prune' / 'checkpoint'}.", "not the quantized one"
    with pytest.raises(InputError) as of_stage:
        inspect_source(run / "02-prune")
    assert of_stage.value.remedy == f"Name {run / '02-prune' / 'checkpoint'}."
    with pytest.raises(InputError) as of_graph:
        find_graph(run)
    assert of_graph.value.remedy == f"Name a stage of the run, such as {run / '03-quantize'}."
    with pytest.raises(InputError) as of_evaluated:
        prepare_evaluation(evaluation_request({}, run))
    assert of_evaluated.value.remedy == of_graph.value.remedy
    with pytest.raises(InputError, match="is a stage of a run") as of_figures:
        read_metrics(run / "02-prune")
    assert of_figures.value.remedy == f"Name the run: {run}"


def test_bench_says_which_contexts_have_no_room(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    graphs = [str(chain[1] / name) for name in ("00-baseline", "02-prune")]
    options = ["--context", "4000", "--context", "8", "--repeats", "1", "--decode-tokens", "2"]
    result = CliRunner().invoke(app, ["bench", *graphs, *options])
    assert result.exit_code == 0, result.output
    longest = load_checkpoint(chain[1] / "02-prune" / "checkpoint").model.config.max_position_embeddings - 2
    assert f"4,000 tokens do not fit every model's context: {longest} were measured instead" in result.output


def test_a_run_may_be_named_like_a_stage(chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path) -> None:
    shutil.copytree(chain[1], tmp_path / "02-prune")
    assert read_metrics(tmp_path / "02-prune") == read_metrics(chain[1])


def test_a_setting_at_fault_is_named_wherever_its_stage_stands(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    teacher = chain[1] / "00-baseline" / "checkpoint"
    tiny = {"kind": "quantize", "scheme": "int4", "max_bytes": 3, "calibration": CALIBRATION}
    settings = {"data": {"train": [text_file], "eval_fraction": 0.25}, "evaluation": EVALUATION}
    for number, before in enumerate(([], [PRUNE])):
        document = {"name": "at-fault", "model": teacher, "stages": [*before, tiny], **settings}
        asked = parse_recipe(json.loads(json.dumps(document, default=str)))
        with pytest.raises(GateMissedError) as caught:
            carry_out(asked, tmp_path / str(number))
        assert caught.value.where == f"stages[{number}].max_bytes"


def test_a_finished_run_stays_finished_where_what_is_added_cannot_be(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    teacher, folder = chain[1] / "00-baseline" / "checkpoint", tmp_path / "current"
    settings = {"data": {"train": [text_file], "eval_fraction": 0.25}, "evaluation": EVALUATION}
    carry_out(grow(folder, DISTILL, source=teacher, fresh=False, settings=settings), folder)
    before = contents(folder)
    impossible: list[tuple[dict[str, Any], str]] = [
        ({**PRUNE, "multiple_of": 64}, "ratio"),
        ({**PRUNE, "calibration": {"windows": 1, "block_size": 16}, "own_windows": 0}, "calibration"),
        ({"kind": "quantize", "scheme": "int4", "max_bytes": 3, "calibration": CALIBRATION}, "max_bytes"),
    ]
    for stage, key in impossible:
        grown = grow(folder, stage, source=None, fresh=False, settings={})
        with pytest.raises(RootsError) as caught:
            list(plan_recipe(prepare(grown, folder), folder))
        assert caught.value.where == f"stages[1].{key}"
        with pytest.raises(RootsError) as caught:
            run_recipe(prepare(grown, folder), folder, events=Events())
        assert caught.value.where == f"stages[1].{key}"
        assert contents(folder) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stage_keeps_the_name_it_is_given_and_its_paths_start_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("teacher").mkdir()
    stage = {"kind": "distill", "name": "mine", "loss": {"top_k": 4, "cache": "kept"}}
    grown = grow(Path("runs/current"), stage, source=Path("teacher"), fresh=False, settings={})
    first = grown.stages[0]
    assert isinstance(first, DistillConfig)
    assert (first.name, first.loss.cache) == ("mine", tmp_path / "kept")


def test_a_later_stage_takes_a_name_of_its_own_but_not_another_ones(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path
) -> None:
    folder = tmp_path / "unfinished"
    shutil.copytree(chain[1], folder)
    shutil.rmtree(folder / "03-quantize")
    for _ in range(2):
        grown = grow(folder, {**QUANTIZE, "name": "small"}, source=None, fresh=False, settings={})
        assert [stage.name for stage in grown.stages] == ["train", "distill", "prune", "small"]
    with pytest.raises(InputError, match="prune"):
        grow(folder, {**QUANTIZE, "name": "prune"}, source=None, fresh=False, settings={})


def test_a_verb_interrupted_before_its_figures_were_written_is_not_repeated(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path
) -> None:
    folder = tmp_path / "interrupted"
    shutil.copytree(chain[1], folder)
    with pytest.raises(InputError, match="ends in quantized weights"):
        grow(folder, QUANTIZE, source=None, fresh=False, settings={})
    (folder / "metrics.json").unlink()
    assert grow(folder, QUANTIZE, source=None, fresh=False, settings={}) == chain[0]


def test_a_verb_whose_first_stage_failed_may_be_typed_with_other_options(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    teacher, folder = chain[1] / "00-baseline" / "checkpoint", tmp_path / "current"
    settings = {"data": {"train": [text_file], "eval_fraction": 0.25}, "evaluation": EVALUATION}
    few = {"windows": 1, "block_size": 32}
    wanted = {**PRUNE, "calibration": few, "own_windows": 0}
    failed = grow(folder, wanted, source=teacher, fresh=False, settings=settings)
    with pytest.raises(InputError, match="too few for a stable"):
        carry_out(failed, folder)
    second = grow(folder, PRUNE, source=teacher, fresh=False, settings=settings)
    assert [(stage.kind, stage.name) for stage in second.stages] == [("prune", "prune")]


def test_a_verb_cannot_change_how_the_run_is_measured(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(chain[1], folder)
    with pytest.raises(
        InputError, match=r"evaluation\.windows: .* was started with 4; this command asks for 5"
    ):
        grow(folder, DISTILL, source=None, fresh=False, settings={"evaluation": {"windows": 5}})


def test_a_verb_may_say_again_what_a_group_of_settings_holds(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    teacher, folder = chain[1] / "00-baseline" / "checkpoint", tmp_path / "current"

    def grown(source: str) -> Recipe:
        settings = {"data": {"train": [text_file], "fields": {"source": source}}}
        return grow(folder, PRUNE, source=teacher, fresh=False, settings=settings)

    first = grown("article")
    with RunFolder.open(folder) as run:
        describe(run, first, None)
    assert grown("article") == first
    with pytest.raises(InputError, match=r"data\.fields: .* started with .*article"):
        grown("document")


def test_a_model_that_is_missing_writes_nothing(text_file: Path, tmp_path: Path) -> None:
    wanted = recipe(text_file, DISTILL, model=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        carry_out(wanted, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_edited_while_it_is_imported_is_not_committed(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(chain[1] / "00-baseline" / "checkpoint", model)

    def edit_then_export(*arguments: Any, **options: Any) -> ExportReport:
        (model / "config.json").write_bytes((model / "config.json").read_bytes() + b"\n")
        return export_checkpoint(*arguments, **options)

    monkeypatch.setattr(stage_runner, "export_checkpoint", edit_then_export)
    with pytest.raises(StageError, match=r"changed while the stage was being made: inputs\.model: "):
        carry_out(recipe(text_file, model=str(model)), folder)
    assert read_stages(folder)[0] == []
    monkeypatch.undo()
    assert len(carry_out(recipe(text_file, model=str(model)), folder).stages) == 1


def test_a_source_is_hashed_once_a_run(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, read = chain[1] / "00-baseline" / "checkpoint", Counter[Path]()

    def counted(path: Path) -> str:
        read[path] += 1
        return file_sha256(path)

    monkeypatch.setattr(disk, "file_sha256", counted)
    monkeypatch.setattr(disk, "_TICK_NS", 0)
    carry_out(recipe(text_file, model=str(model)), tmp_path / "run")
    assert {read[path] for path in model.iterdir() if path.suffix in READ_SUFFIXES} == {1}


def test_a_stage_that_runs_out_of_memory_fails_by_name(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(chain[1] / "00-baseline" / "checkpoint")
    monkeypatch.setattr(stage_runner, "load_checkpoint", lambda _source: torch.empty(1 << 50))
    with pytest.raises(StageError, match="00 baseline failed: memory ran out"):
        carry_out(recipe(text_file, model=model), tmp_path / "run")


def test_a_stage_whose_checkpoint_is_edited_is_no_ground_for_another(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(chain[1], folder)
    weights = folder / "02-prune" / "checkpoint" / "model.safetensors"

    def edit_then_export(*arguments: Any, **options: Any) -> ExportReport:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        return export_checkpoint(*arguments, **options)

    monkeypatch.setattr(stage_runner, "export_checkpoint", edit_then_export)
    int4 = {**QUANTIZE, "products": "auto", "scheme": "int4"}
    with pytest.raises(StageError, match=r"02-prune: checkpoint/model\.safetensors changed"):
        carry_out(recipe(text_file, TRAIN, DISTILL, PRUNE, int4), folder)
    assert len(read_stages(folder)[0]) == 4, "the stage that was to be replaced still stands"


def write_recipe(path: Path, text: Path) -> Path:
    # JSON is YAML.
    document = {
        "name": "tiny",
        "data": {"train": [str(text)], "eval_fraction": 0.25},
        "evaluation": EVALUATION,
        "stages": [{**TRAIN, "training": {**TRAINING, "steps": 40, "checkpoint_every": 4}}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_an_interrupted_run_says_so_and_the_same_command_goes_on(
    commands: Commands, text_file: Path, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", text_file)
    folder = tmp_path / "run"
    process = commands.start("run", path, "--run", folder)
    work = folder / ".00-baseline.partial" / "work"
    deadline = time.monotonic() + 90
    while not (work.is_dir() and any(work.iterdir())):
        assert time.monotonic() < deadline, "training never saved its state"
        assert commands.running(), commands.said()
    os.kill(process, signal.SIGTERM)  # Ctrl-C has a test of its own.
    assert commands.end() == 143, commands.said()
    assert "the same command goes on from there" in commands.said()
    assert commands.run("run", path, "--run", folder).code == 0
    assert read_metrics(folder).stages[0].notes["steps"] == 40
    assert "going on from step" in commands.said()
    assert "Traceback" not in commands.said()


def test_a_recipe_that_is_edited_meanwhile_is_kept_as_it_was_carried_out(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edited.yaml"
    document = {
        "name": "edited",
        "model": str(chain[1] / "00-baseline" / "checkpoint"),
        "data": {"train": [str(text_file)], "eval_fraction": 0.25},
        "evaluation": EVALUATION,
    }
    text = json.dumps(document)
    path.write_text(text, encoding="utf-8")

    def edited(*given: Any) -> Setting:
        path.write_text("name: another", encoding="utf-8")
        return prepare(*given)

    monkeypatch.setattr(preflight, "prepare", edited)
    outcome = CliRunner().invoke(app, ["run", str(path), "--run", str(tmp_path / "run")])
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8") == text
