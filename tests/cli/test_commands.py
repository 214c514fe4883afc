"""What a person meets on the command line: help, errors, exit codes, and how fast they come."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from roots_compress.cli.app import app
from roots_compress.configs.recipe.schema import STAGES
from roots_compress.results import RunMetrics
from tests.report.figures import run as make_run
from tests.report.figures import stage
from tests.verbs import verbs

RECIPES = Path(__file__).parents[2] / "recipes"


def roots_compress(*arguments: str | Path, cwd: Path | None = None) -> Result:
    with chdir(cwd or Path.cwd()):
        return CliRunner().invoke(app, [*map(str, arguments)])


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    folder = tmp_path / "finished"
    folder.mkdir()
    metrics: RunMetrics = make_run(stage(), stage(1, "quantize", size=2_000_000))
    (folder / "metrics.json").write_text(json.dumps(metrics.to_json()))
    return folder


LARGE = {"torch", "transformers", "onnx", "onnxruntime", "numpy", "pyarrow"}


@pytest.mark.parametrize(
    ("arguments", "libraries"),
    # Rich alone would make the help take twice as long, pydantic and the settings half as long again.
    [
        (["--help"], LARGE | {"pydantic", "rich", "yaml"}),
        (["prune", "--help"], LARGE | {"rich", "yaml"}),
        (["validate", RECIPES / "quickstart.yaml"], LARGE),
    ],
)
def test_help_and_validate_import_no_large_library(arguments: list[str | Path], libraries: set[str]) -> None:
    code = (
        "import sys\n"
        "from roots_compress.cli.app import app\n"
        "try:\n    app()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert libraries.isdisjoint(result.stderr.split())


@pytest.mark.parametrize("arguments", [["quantize", "nowhere"], ["compress", "nowhere", "--max-mb", "1"]])
def test_a_missing_model_is_named_before_the_libraries_of_models_are_loaded(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom roots_compress.cli.app import app\n"
        "try:\n    app()\nfinally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "'nowhere' does not exist" in result.stderr
    assert {"torch", "transformers"}.isdisjoint(result.stderr.split())


@pytest.mark.parametrize("verb", [*verbs(), "data prepare"])
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    usage = result.output.splitlines()[0]
    assert f" {verb} [OPTIONS]" in usage
    assert not re.search(r"[{}]|\.\.\.]", usage)


@pytest.mark.parametrize("verb", [*(verb for verb in verbs() if verb != "data"), "data prepare"])
def test_every_verb_shows_an_example_that_can_be_typed(verb: str) -> None:
    names = verb.split()
    command = get_command(app)
    for name in names:
        assert isinstance(command, TyperGroup)
        command = command.commands[name]
    _, *examples = (command.epilog or "").split("\n\n")
    assert examples
    shown = " ".join(CliRunner().invoke(app, [*names, "--help"]).output.split())
    for example in examples:
        program, *typed = shlex.split(example.partition(" > ")[0])
        assert (program, typed[: len(names)]) == ("roots-compress", names)
        command.make_context(verb, typed[len(names) :])
        assert example.split(" --")[0] in shown


@pytest.mark.parametrize(
    ("verb", "headings"),
    [
        ("prune", ["Arguments", "Options", "Run", "Text", "Measuring", "Output", "Example"]),
        ("eval", ["Arguments", "Options", "Run", "Text", "Measuring", "Output", "Example"]),
        ("distill", ["Options", "Loss", "Training", "Run", "Text", "Measuring", "Output", "Example"]),
        ("export", ["Arguments", "Options", "Example"]),
        ("bench", ["Arguments", "Options", "Example"]),
    ],
)
def test_help_puts_many_options_under_headings_and_says_types_in_plain_words(
    verb: str, headings: list[str]
) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"]).output
    assert re.findall(r"^(\w+):$", shown, re.MULTILINE) == headings
    assert not re.findall(r"<list|\w range>", shown)


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_settings_as_they_are_typed(stage: str) -> None:
    shown = " ".join(CliRunner().invoke(app, [stage, "--help"]).output.split())
    settings = {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", shown)}
    assert settings & set(re.findall(r"`(\w+)(?:: \w+)?`", shown)) <= {"run"}  # a value of --text
    assert "ROOTS" not in shown


def complete(words: str, cwd: Path) -> list[str]:
    """Return what bash offers for the last of some words."""
    environment = {
        "_ROOTS_COMPRESS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    with chdir(cwd):
        return CliRunner().invoke(app, env=environment, prog_name="roots-compress").stdout.split()


def test_the_shell_completes_verbs_options_recipes_and_checkpoints(tmp_path: Path) -> None:
    for name in ("recipes/mine.yaml", "recipes/notes.txt", "model/config.json", "m.gguf", ".hidden/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert complete("roots-compress val", tmp_path) == ["validate"]
    assert complete("roots-compress prune --rat", tmp_path) == ["--ratio"]
    assert complete("roots-compress validate rec", tmp_path) == ["recipes/", "recipes/mine.yaml"]
    assert complete("roots-compress quantize m", tmp_path) == ["m.gguf", "model/"]
    assert complete("roots-compress validate --model nowhere/", tmp_path) == []


def test_an_unknown_verb_is_refused_with_the_nearest_one() -> None:
    assert_refused(roots_compress("quantise"), "quantise", "quantize")


def test_a_stage_without_checkpoint_or_run_says_what_to_type(tmp_path: Path) -> None:
    result = roots_compress("quantize", "--int8", cwd=tmp_path)
    assert_refused(result, "no checkpoint is named", "roots-compress quantize path/to/checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_an_option_out_of_bounds_names_itself_and_its_bound(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    result = roots_compress("prune", "model", "--ratio", "1.5", cwd=tmp_path)
    assert_refused(result, "ratio", "below 1")
    assert not (tmp_path / "runs").exists()


def test_any_key_of_a_stage_can_be_given_and_a_misspelt_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    result = roots_compress("prune", "model", "--set", "calibration.window=3", cwd=tmp_path)
    assert_refused(result, "calibration.window", "did you mean 'windows'")
    assert not (tmp_path / "runs").exists()


def test_two_schemes_exclude_one_another() -> None:
    assert_refused(roots_compress("quantize", "--int8", "--int4"), "--int8", "--int4")


def test_a_missing_checkpoint_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    result = roots_compress("distill", "--teacher", "nowhere", "--student", "small", cwd=tmp_path)
    assert_refused(result, "nowhere", "does not exist")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_recipe_is_named() -> None:
    assert_refused(roots_compress("run", "nowhere.yaml"), "nowhere.yaml")


def test_init_writes_a_recipe_that_validates_and_overwrites_nothing(tmp_path: Path) -> None:
    assert roots_compress("init", cwd=tmp_path).exit_code == 0
    assert_refused(roots_compress("init", cwd=tmp_path), "recipe.yaml", "exists already")
    (tmp_path / "model").mkdir()
    result = roots_compress("validate", "recipe.yaml", "--model", "model", cwd=tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout == "recipe.yaml is valid: quantize\n"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("table", "perplexity"),
        ("markdown", "| stage |"),
        ("html", "<!doctype html>"),
        ("json", '"schema": 1'),
    ],
)
def test_report_shows_a_run_in_each_form(finished_run: Path, form: str, words: str) -> None:
    result = roots_compress("report", finished_run, "--format", form)
    assert result.exit_code == 0, result.output
    assert words in result.stdout


def test_a_table_in_a_pipe_is_not_folded(finished_run: Path) -> None:
    lines = roots_compress("report", finished_run).stdout.splitlines()
    assert any("quantize" in line and "4.00x" in line and "100 / 80" in line for line in lines)


def test_report_without_a_run_is_refused(tmp_path: Path) -> None:
    assert_refused(roots_compress("report", cwd=tmp_path), "runs/current")


def test_compare_puts_runs_side_by_side(finished_run: Path) -> None:
    result = roots_compress("compare", finished_run, finished_run)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("quantize") == 2


def test_doctor_reports_versions_and_providers() -> None:
    result = roots_compress("doctor")
    assert result.exit_code == 0, result.output
    assert "CPUExecutionProvider" in result.stdout
    assert "torch 2." in result.stdout
    attention = sum(line.startswith("!") for line in result.stdout.splitlines())
    ends = {0: "Nothing is missing."}
    assert result.stdout.splitlines()[-1] == ends.get(
        attention, f"{attention} of these need attention: they begin with !"
    )


def test_version() -> None:
    assert roots_compress("--version").stdout.strip() == "0.1.0"
