"""Whole searches, tiny but real: what is made, what is reused, what is answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.configs.recipe.growth import grow
from roots_compress.configs.recipe.loading import load_recipe, parse_recipe, resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.errors import InputError
from roots_compress.events import Events
from roots_compress.export.exporter import ExportReport, export_checkpoint
from roots_compress.pipeline import stage_runner
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.verify import verify_folder
from roots_compress.results import RunMetrics
from roots_compress.run.stages import read_metrics, read_stages
from roots_compress.search import run as search_run
from roots_compress.search.figures import Figures
from roots_compress.search.plan import plan_search
from roots_compress.search.run import run_search
from roots_compress.stages.quantize.products.choice import FormTimes
from tests.chains import CALIBRATION, EVALUATION, TRAIN, TRAINING, carry_out
from tests.heard import Heard
from tests.stages.quantize.choices import INTEGERS_WIN, WEIGHTS_ONLY_WINS, timings_give

NARROW: dict[str, Any] = {
    "kind": "prune",
    "name": "narrow",
    "ratio": 0.5,
    "own_windows": 0,
    "multiple_of": 8,
    "calibration": CALIBRATION,
}
HALF: dict[str, Any] = {"kind": "distill", "name": "half", "student": "small", "training": TRAINING}
INT8: dict[str, Any] = {
    "kind": "quantize",
    "name": "int8",
    "products": "integer",
    "calibration": CALIBRATION,
}
CHOICES = [HALF, INT8]
ALL = 1 + 1 + 2 + 1
"""The model, the control without a teacher, singles, a pair. More choices make more of the same: see
`test_space.py`."""


def searched(text: Path, *choices: dict[str, Any], minutes: float = 60.0, **gates: float) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"train": [str(text)], "eval_fraction": 0.25},
            "evaluation": EVALUATION,
            "stages": [TRAIN],
            "gates": gates or {"max_perplexity_ratio": 1.5},
            "search": {"max_minutes": minutes, "choices": list(choices)},
        }
    )


def look(recipe: Recipe, folder: Path) -> tuple[RunMetrics, str]:
    events = Heard()
    return run_search(prepare(recipe, folder), folder, events=events), events.text


@pytest.fixture(scope="module")
def finished(
    text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path, RunMetrics, str]:
    folder = tmp_path_factory.mktemp("search") / "run"
    recipe = searched(text_file, *CHOICES)
    return recipe, folder, *look(recipe, folder)


@pytest.fixture
def folder(finished: tuple[Recipe, Path, RunMetrics, str], tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished[1], tmp_path / "run")


@pytest.fixture
def baseline(finished: tuple[Recipe, Path, RunMetrics, str], tmp_path: Path) -> Path:
    """A run that holds nothing but the finished one's baseline."""
    folder = tmp_path / "run"
    shutil.copytree(finished[1] / "00-baseline", folder / "00-baseline")
    shutil.copy(finished[1] / ".roots-run.json", folder)
    return folder


def test_every_candidate_is_tried_and_each_stage_is_made_once(
    finished: tuple[Recipe, Path, RunMetrics, str],
) -> None:
    _, folder, metrics, output = finished
    assert metrics.search is not None
    assert len(metrics.search.candidates) == ALL
    assert metrics.search.untried == 0
    assert metrics.search.failed == {}
    made = output.count("graph agrees with the checkpoint")
    assert made == ALL, "as many stages as candidates: their beginnings are candidates too"
    cached = [path for path in (folder / "shelf").glob("*/*") if path.is_dir()]
    assert len(cached) + len(read_stages(folder)[0]) == made


def test_a_listed_candidate_that_was_begun_in_time_is_finished(
    text_file: Path, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, attempt = [0.0], search_run._try

    def late(*arguments: Any) -> Figures:
        clock[0] += 40.0  # seconds of a minute: the time is over when the second is made
        return attempt(*arguments)

    monkeypatch.setattr(search_run, "_try", late)
    monkeypatch.setattr(
        search_run, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=perf_counter)
    )
    recipe = searched(text_file, HALF, INT8, minutes=1.0, max_bytes=1)
    assert recipe.search is not None
    listed = recipe.search.model_copy(update={"candidates": (("half", "int8"), ("int8",))})
    metrics, _ = look(recipe.model_copy(update={"search": listed}), baseline)
    assert metrics.search is not None
    assert {row.stages for row in metrics.search.candidates} == {(), ("half",), ("half", "int8")}


def test_front_controls_and_best_are_marked(finished: tuple[Recipe, Path, RunMetrics, str]) -> None:
    _, _, metrics, _ = finished
    assert metrics.search is not None
    rows = {row.stages: row for row in metrics.search.candidates}
    assert {stages for stages, row in rows.items() if row.role == "control"} == {
        ("int8",),
        ("half-untaught",),
    }
    assert rows["half",].bytes == rows["half-untaught",].bytes, "the same student"
    assert rows["half",].figures["perplexity_ratio"] != rows["half-untaught",].figures["perplexity_ratio"]
    smallest = min(rows.values(), key=lambda row: row.bytes)
    assert smallest.on_front
    best = rows[metrics.search.best]
    assert best.keeps_budgets
    assert best.on_front
    assert all(
        best.bytes * best.figures["decode_ms"] <= row.bytes * row.figures["decode_ms"]
        for row in rows.values()
        if row.keeps_budgets
    )


def test_the_run_is_the_best_ones(finished: tuple[Recipe, Path, RunMetrics, str]) -> None:
    _, folder, metrics, _ = finished
    assert metrics.search is not None
    assert [row.name for row in metrics.stages] == ["baseline", *metrics.search.best]
    assert read_metrics(folder) == metrics
    assert [gate.gate for gate in metrics.gates] == ["max_perplexity_ratio"]
    assert "Search" in (folder / "report.html").read_text()
    assert [finding.faults for finding in verify_folder(folder) if finding.faults] == []
    (candidate,) = [row for row in metrics.search.candidates if row.stages == metrics.search.best]
    assert candidate.bytes == metrics.stages[-1].metrics.bytes


def test_the_best_recipe_runs_as_it_is_written(
    finished: tuple[Recipe, Path, RunMetrics, str], folder: Path
) -> None:
    _, _, metrics, _ = finished
    recipe = load_recipe(read_yaml(folder / "best.yaml"))
    assert recipe.name == "tiny-best"
    assert recipe.search is None
    again = carry_out(recipe, folder)
    for before, after in zip(metrics.stages, again.stages, strict=True):
        assert before.metrics.quality == after.metrics.quality
    assert again.gates[0].limit == 1.5


@pytest.mark.parametrize("found", [INTEGERS_WIN, WEIGHTS_ONLY_WINS], ids=["integer", "float"])
def test_the_best_recipe_has_the_products_that_won_and_gives_the_same_checkpoint(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baseline: Path, found: FormTimes
) -> None:
    chooses = {**INT8, "products": "auto", "workload": {"read": 400, "write": 80}, "group_size": 16}
    recipe = searched(text_file, chooses | {"activation_loss": 0.5}, max_bytes=1)
    timings_give(monkeypatch, found)
    metrics, _ = look(recipe, baseline)
    assert metrics.search is not None
    assert metrics.search.best == ("int8",)
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS if found is INTEGERS_WIN else INTEGERS_WIN)
    best = load_recipe(read_yaml(baseline / "best.yaml"))
    shutil.copytree(baseline / "00-baseline", tmp_path / "alone" / "00-baseline")
    shutil.copy(baseline / ".roots-run.json", tmp_path / "alone")
    carry_out(best, tmp_path / "alone")
    assert timed == []
    (won, again) = (read_stages(folder)[0][-1] for folder in (baseline, tmp_path / "alone"))
    assert again.manifest.checkpoint_files == won.manifest.checkpoint_files


def test_a_finished_search_is_not_made_again(
    finished: tuple[Recipe, Path, RunMetrics, str], folder: Path
) -> None:
    recipe, _, metrics, _ = finished
    plan = list(plan_search(prepare(recipe, folder), folder))
    assert plan[0].startswith(f"{ALL} candidates, {ALL} of them tried")
    again, output = look(recipe, folder)
    assert "graph agrees" not in output
    assert again.search == metrics.search


def test_a_further_choice_reuses_what_there_is(text_file: Path, folder: Path) -> None:
    fp16 = {"kind": "quantize", "name": "fp16", "scheme": "fp16", "calibration": CALIBRATION}
    recipe = searched(text_file, HALF, INT8, fp16)
    lines = list(plan_search(prepare(recipe, folder), folder))
    assert [line for line in lines if line.endswith("to be tried")] == [
        "fp16 (control): to be tried",
        "half > fp16: to be tried",
    ]
    metrics, output = look(recipe, folder)
    assert output.count("graph agrees") == 2
    assert metrics.search is not None
    assert len(metrics.search.candidates) == 7


def test_figures_that_are_lost_are_measured_again_from_the_stages(text_file: Path, folder: Path) -> None:
    (folder / "search.json").write_text("{", encoding="utf-8")
    metrics, output = look(searched(text_file, HALF, INT8), folder)
    assert "graph agrees" not in output
    assert "taken back" in output
    assert metrics.search is not None
    assert len(metrics.search.candidates) == ALL


def test_without_time_the_answer_is_what_there_is(text_file: Path, baseline: Path) -> None:
    metrics, _ = look(searched(text_file, *CHOICES, minutes=1e-9), baseline)
    assert metrics.search is not None
    assert [row.stages for row in metrics.search.candidates] == [()]
    assert metrics.search.untried == ALL - 1
    assert len(metrics.stages) == 1


def test_a_candidate_that_cannot_be_made_is_named_and_the_others_go_on(text_file: Path, folder: Path) -> None:
    hopeless = {**NARROW, "name": "hopeless", "ratio": 0.99}
    too_large = {**INT8, "name": "too-large", "products": "auto", "scheme": "int4", "max_bytes": 1}
    recipe = searched(text_file, hopeless, INT8, too_large)
    metrics, _ = look(recipe, folder)
    assert metrics.search is not None
    assert {row.stages for row in metrics.search.candidates} == {(), ("int8",)}
    assert "no legal width" in metrics.search.failed["hopeless"]
    assert "bytes" in metrics.search.failed["too-large"]
    assert metrics.search.untried == 0, "what holds a failed choice is ruled out, not left for want of time"
    assert "hopeless failed" in (folder / "report.html").read_text()
    again, output = look(recipe, folder)
    assert again.search == metrics.search
    assert "4 of 6 candidates were tried earlier" in output
    assert "left out" not in output, "it would fail for the same reason"
    lines = list(plan_search(prepare(recipe, folder), folder))
    assert any(line.startswith("hopeless: tried: ") and "no legal width" in line for line in lines)
    _, other = look(searched(text_file, {**hopeless, "ratio": 0.98}, INT8), folder)
    assert "left out" in other, "it is another candidate"


def test_a_candidate_that_lacked_room_is_tried_again(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    fp16 = {"kind": "quantize", "name": "fp16", "scheme": "fp16", "calibration": CALIBRATION}
    recipe = searched(text_file, fp16)
    with monkeypatch.context() as short:
        short.setattr(stage_runner, "available_memory", lambda: 1)
        metrics, _ = look(recipe, folder)
    assert metrics.search is not None
    assert "too little memory" in metrics.search.failed["fp16"]
    metrics, _ = look(recipe, folder)
    assert metrics.search is not None
    assert metrics.search.failed == {}
    assert len(metrics.search.candidates) == 2


def test_a_budget_that_cannot_be_met_gives_the_nearest(text_file: Path, folder: Path) -> None:
    metrics, _ = look(searched(text_file, *CHOICES, max_bytes=1), folder)
    assert metrics.search is not None
    assert not any(row.keeps_budgets for row in metrics.search.candidates)
    sizes = {row.stages: row.bytes for row in metrics.search.candidates}
    assert sizes[metrics.search.best] == min(sizes.values())
    assert [gate.passed for gate in metrics.gates] == [False]
    assert "NO CANDIDATE KEEPS ALL BUDGETS" in (folder / "report.html").read_text()


def test_the_command_searches_and_ends_with_code_3_where_a_budget_is_missed(
    text_file: Path, tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    recipe = searched(text_file, *CHOICES, max_bytes=1, max_perplexity_ratio=3.0)
    path.write_text(json.dumps(resolved(recipe)), encoding="utf-8")  # JSON is YAML.
    planned = CliRunner().invoke(app, ["plan", str(path), "--run", str(folder), "--no-probe"])
    assert planned.exit_code == 0
    assert f"{ALL} candidates, {ALL} of them tried earlier; 60 minutes" in planned.stdout
    checked = CliRunner().invoke(app, ["validate", str(path)])
    assert "train -> search of half, int8" in checked.stdout
    result = CliRunner().invoke(app, ["run", str(path), "--run", str(folder)])
    assert result.exit_code == 3, result.stderr
    assert "1 of 2 gates missed: max_bytes is" in result.stderr
    assert "NO CANDIDATE KEEPS ALL BUDGETS" in " ".join(result.stdout.split())
    assert "half-untaught" in result.stdout
    assert load_recipe(read_yaml(folder / "best.yaml")).gates == recipe.gates
    refused = CliRunner().invoke(app, ["quantize", "--run", str(folder)])
    assert refused.exit_code == 2, "the best one is quantized already"


def test_an_interrupted_search_goes_on_where_it_was_stopped(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, baseline: Path
) -> None:
    recipe, export, made = searched(text_file, NARROW, INT8), export_checkpoint, 0

    def export_or_stop(*arguments: Any, **options: Any) -> ExportReport:
        nonlocal made
        made += 1
        if made == 2:
            raise KeyboardInterrupt
        return export(*arguments, **options)

    monkeypatch.setattr(stage_runner, "export_checkpoint", export_or_stop)
    with pytest.raises(KeyboardInterrupt):
        look(recipe, baseline)
    with pytest.raises(InputError, match="has not ended"):
        grow(baseline, INT8, source=None, fresh=False, settings={})
    monkeypatch.undo()
    metrics, output = look(recipe, baseline)
    assert output.count("graph agrees") == 2, "one of three was made before"
    assert metrics.search is not None
    assert len(metrics.search.candidates) == 4


def test_fresh_takes_the_stage_cache_away(text_file: Path, folder: Path) -> None:
    recipe = searched(text_file, INT8, minutes=1e-9)
    metrics = run_search(prepare(recipe, folder), folder, fresh=True, events=Events())
    assert len(metrics.stages) == 1
    assert not list((folder / "shelf").iterdir())


def test_metrics_of_a_search_survive_their_json_form(
    finished: tuple[Recipe, Path, RunMetrics, str],
) -> None:
    _, folder, metrics, _ = finished
    document = json.loads((folder / "metrics.json").read_text())
    assert RunMetrics.from_json(document) == metrics
