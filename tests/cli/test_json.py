"""What `--json` and `--quiet` write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.cli.display.json_lines import document
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.events import Figure, Message
from roots_compress.results import RunMetrics
from tests.chains import EVALUATION, TRAIN

Chain = tuple[Recipe, Path, RunMetrics]
Line = dict[str, Any]
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "event.schema.json"
VALID = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def events_of(*arguments: str | Path, code: int = 0) -> list[Line]:
    """Return what a verb emits; every line is valid, and the first and the last are those of each verb."""
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert ended.exit_code == code, ended.output
    assert ended.stdout.isascii()
    lines: list[Line] = [json.loads(line) for line in ended.stdout.splitlines()]
    for line in lines:
        VALID.validate(line)
    assert lines[-1]["event"] == "verb_finished"
    assert lines[-1]["exit_code"] == code
    return lines


def named(lines: list[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def recipe_file(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("json") / "recipe.yaml"
    gates = {"max_bytes": 1}
    settings = {"name": "tiny", "data": {"train": [str(text_file)], "eval_fraction": 0.25}, "gates": gates}
    path.write_text(yaml.safe_dump({**settings, "evaluation": EVALUATION, "stages": [TRAIN]}))
    return path


def test_a_run_tells_its_stages_figures_gates_and_result(recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lines = events_of("run", recipe_file, "--run", run, code=3)
    order = [line["event"] for line in lines if line["event"] not in ("figure", "message", "work_advanced")]
    works = ["work_started", "work_finished"]
    assert order == [
        *("verb_started", "run_started", "chain_planned", "stage_started"),
        *(works * 3),  # training, export, quality
        *("stage_finished", *works, "gate_judged", "run_finished", "result", "error", "verb_finished"),
    ]
    losses = [line for line in named(lines, "figure") if line["name"] == "loss"]
    assert [line["step"] for line in losses] == [1, 2, 3, 4, 5, 6]
    assert {line["stage"] for line in named(lines, "figure")} == {0}
    assert named(lines, "gate_judged")[0]["passed"] is False
    assert "max_bytes" in named(lines, "error")[0]["message"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert named(lines, "result")[0]["result"] == {
        "run": str(run),
        "report": str(run / "report.html"),
        "metrics": metrics,
    }
    told = {line["name"]: line["value"] for line in named(lines, "figure")}
    assert told["perplexity"] == metrics["stages"][0]["perplexity"]
    again = events_of("run", recipe_file, "--run", run, code=3)
    assert [line["origin"] for line in named(again, "stage_finished")] == ["reused"]


@pytest.mark.parametrize(
    "verb",
    [
        "report RUN",
        "report RUN --format markdown",
        "compare RUN RUN",
        "verify STAGE",
        "validate RECIPE",
        "schema",
        "doctor",
        "generate STAGE --prompt one --max-new-tokens 3 --threads 1",
        "bench STAGE --context 16 --repeats 1 --decode-tokens 2 --threads 1",
    ],
)
def test_each_verb_gives_its_result_as_one_event(verb: str, chain: Chain, recipe_file: Path) -> None:
    (stage,) = chain[1].glob("00-*")
    named_paths = {"STAGE": stage, "RUN": chain[1], "RECIPE": recipe_file}
    arguments = [str(named_paths.get(word, word)) for word in verb.split()]
    lines = events_of(*arguments)
    (result,) = named(lines, "result")
    assert lines[0] == {**lines[0], "event": "verb_started", "verb": arguments[0]}
    assert result["verb"] == arguments[0]
    assert result["result"]


@pytest.mark.parametrize("arguments", [("validate",), ("validate", "a", "--nope"), ("validat", "a")])
def test_a_mistake_in_the_options_is_an_event_too(arguments: tuple[str, ...]) -> None:
    (error,) = named(events_of(*arguments, code=2), "error")
    assert error["message"]


def test_an_error_names_its_place_and_stays_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb\nc.yaml"
    (error,) = named(events_of("validate", path, code=2), "error")
    assert error["where"] == str(path)


def test_figures_that_are_no_numbers_and_halves_of_characters_stay_json() -> None:
    assert document(Figure("perplexity", float("inf")))["value"] is None
    assert document(Message("a\udce9b"))["text"] == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("options", "told"), [((), True), (("--quiet",), False), (("--quiet", "--json"), False)]
)
def test_quiet_leaves_the_result_and_errors(
    options: tuple[str, ...], told: bool, recipe_file: Path, tmp_path: Path
) -> None:
    ended = CliRunner().invoke(app, ["run", str(recipe_file), "--run", str(tmp_path / "run"), *options])
    assert ended.exit_code == 3
    assert "max_bytes" in ended.stderr
    assert ("graph agrees with the checkpoint" in ended.stderr) == told
    assert "perplexity" in ended.stdout
