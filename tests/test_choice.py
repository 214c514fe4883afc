"""A choice made by timing, through a whole run: kept over an interruption, in key, notes and report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.pipeline import stage_runner
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.runner import plan_recipe
from roots_compress.pipeline.verify import verify_folder
from roots_compress.report.html import html
from roots_compress.report.markdown import markdown
from roots_compress.report.text import caption
from roots_compress.run.keys import CHOSEN
from roots_compress.run.stages import read_metrics, read_stages
from roots_compress.stages.quantize.products.caption import choice_caption
from tests.chains import ARCHITECTURE, CALIBRATION, TRAIN, TRAINING, carry_out, recipe
from tests.report import figures
from tests.stages.quantize.choices import WEIGHTS_ONLY_WINS, integers_win, timings_give

INT8 = {"kind": "quantize", "activation_loss": 100.0, "own_windows": 2, "calibration": CALIBRATION}
QUICK = {**TRAIN, "architecture": {**ARCHITECTURE, "num_layers": 1}, "training": {**TRAINING, "steps": 2}}


@pytest.fixture
def wanted(text_file: Path) -> Recipe:
    return recipe(text_file, QUICK, INT8)


@pytest.fixture(scope="module")
def made(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of what is `wanted`, in which integer products won."""
    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.MonkeyPatch.context() as patch:
        integers_win(patch)
        carry_out(recipe(text_file, QUICK, INT8), folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(made, tmp_path / "run")


def chosen(folder: Path) -> Any:
    return read_stages(folder)[0][-1].key.ingredients[CHOSEN]


def weights(folder: Path) -> bytes:
    return (folder / "01-quantize" / "checkpoint" / "model.safetensors").read_bytes()


def test_a_run_goes_on_with_the_choice_that_it_was_killed_after(
    wanted: Recipe, made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    integers_win(monkeypatch)
    shutil.rmtree(folder / "01-quantize")
    with monkeypatch.context() as death:
        death.setattr(stage_runner, "save_checkpoint", None)
        with pytest.raises(TypeError):
            carry_out(wanted, folder)
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS)
    carry_out(wanted, folder)
    assert timed == []
    assert chosen(folder)["products"] == "integer"
    assert weights(folder) == weights(made)


def test_a_choice_stands_in_key_and_notes_and_is_reused(
    wanted: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = read_metrics(folder)
    stage = read_stages(folder)[0][-1]
    assert stage.key.sha256 != stage.key.asked
    assert metrics.stages[-1].notes["choice"] == {
        **chosen(folder),
        "bytes": metrics.stages[-1].notes["choice"]["bytes"],  # type: ignore[index, call-overload]
    }
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS)
    assert all("finished, will be reused" in line for line in plan_recipe(prepare(wanted, folder), folder))
    carry_out(wanted, folder)
    assert timed == []
    assert read_stages(folder)[0][-1].key == stage.key
    assert [finding.faults for finding in verify_folder(folder) if finding.faults] == []


def test_a_damaged_stage_is_made_again_by_the_choice_it_was_made_by(
    wanted: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights(folder)
    path = folder / "01-quantize" / "checkpoint" / "model.safetensors"
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS)
    carry_out(wanted, folder)
    assert timed == []
    assert weights(folder) == before


def test_another_question_gets_another_answer(
    text_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS)
    other = recipe(text_file, QUICK, {**INT8, "workload": {"read": 64}})
    reasons = list(plan_recipe(prepare(other, folder), folder))[-1]
    assert "stage.workload.read: 512 -> 64" in reasons
    assert CHOSEN not in reasons
    carry_out(other, folder)
    assert len(timed) == 1
    assert chosen(folder)["products"] == "float"


CHOICE: dict[str, Any] = {
    "products": "integer",
    "processor": "avx2",
    "workload": {"read": 512, "write": 128},
    "source": "timed on this machine with 2 threads",
    "milliseconds": {"integer": 1904.6, "float": 2530.2},
    "bytes": {"integer": 137_500_000, "float": 143_200_000},
    "expected_loss": 0.00463,
    "allowed_loss": 0.005,
}
LINE = (
    "integer products chosen for avx2 with 512 tokens read and 128 written. This takes 1,905 ms and 137.5 "
    "MB; weights only would take 2,530 ms and 143.2 MB (timed on this machine with 2 threads); integer "
    "products are expected to cost 0.00463 nats a prediction (0.005 allowed)"
)


def test_every_report_says_what_was_chosen_and_what_the_other_would_give() -> None:
    stage = figures.stage(1, "quantize", notes={"choice": CHOICE})
    run = figures.run(figures.stage(), stage)
    assert choice_caption(stage.notes) == LINE
    assert f"quantize: {LINE}." in caption(run)
    assert LINE in markdown(run)
    assert LINE.replace("integer", "Integer", 1) in html(run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"products": "float"},
            "weights only chosen for avx2 with 512 tokens read and 128 written. This takes 2,530",
        ),
        # A small encoder reads a text in less than a millisecond: the two must differ as they were timed.
        (
            {"milliseconds": {"integer": 0.3249, "float": 0.3561}},
            "This takes 0.32 ms and 137.5 MB; weights only would take 0.36 ms and",
        ),
        ({"milliseconds": {"integer": 49.74, "float": 50.31}}, "This takes 49.7 ms and 137.5 MB"),
        ({"expected_loss": None}, "; integer products may cost 0.005 nats a prediction"),
        ({"allowed_loss": None}, "; integer products are expected to cost 0.00463 nats a prediction"),
        (
            {"expected_loss": 5.34e-06},
            "; integer products are expected to cost less than 0.0001 nats a prediction (0.005 allowed)",
        ),
    ],
)
def test_a_report_says_what_is_known(changes: dict[str, Any], said: str) -> None:
    assert said in str(choice_caption({"choice": {**CHOICE, **changes}}))


def test_a_report_of_an_unmeasured_processor_gives_no_figures() -> None:
    choice = {key: CHOICE[key] for key in ("workload", "expected_loss", "allowed_loss")}
    choice |= {"products": "float", "processor": "arm", "source": "no measurement of arm is shipped"}
    line = choice_caption({"choice": choice})
    assert line == (
        "weights only chosen for arm with 512 tokens read and 128 written: no measurement of arm is shipped"
    )


@pytest.mark.parametrize("spoilt", [None, 3, [], {}, {**CHOICE, "products": "x"}, {**CHOICE, "bytes": 3}])
def test_notes_that_hold_something_else_are_passed_over(spoilt: Any) -> None:
    assert choice_caption({"choice": spoilt}) is None


def test_validate_and_plan_time_nothing(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = integers_win(monkeypatch)
    document = json.loads(recipe(text_file, QUICK, INT8).model_dump_json())
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(document))
    for command in ("validate", "plan"):
        options = ["--run", str(tmp_path / "run"), "--no-probe"] if command == "plan" else []
        result = CliRunner().invoke(app, [command, str(path), *options])
        assert result.exit_code == 0, result.output
    assert timed == []
