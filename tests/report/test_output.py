"""Reports and comparisons as files, through the command line."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.report.reading import short_names
from roots_compress.results import GateResult, RunMetrics
from tests.report.figures import run, stage

RUN = replace(
    run(stage(), stage(1, "quantize", size=2_000_000)),
    gates=(GateResult("max_bytes", 1.0, 2e6, False, stage="quantize"),),
)


def roots(*words: str | Path, code: int = 0) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code == code, outcome.output
    return outcome.output


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    for name, seed in (("one", 0), ("two", 1)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(RUN.to_json()))
        (folder / "recipe.yaml").write_text(f"name: {name}  # of the run")
        (folder / "resolved.json").write_text(json.dumps({"name": name, "model": "m", "seed": seed}))
    return tmp_path


@pytest.mark.parametrize("form", ["table", "markdown", "html", "json", "csv", "junit"])
def test_a_report_goes_to_a_file_as_it_goes_to_a_pipe(stored: Path, form: str) -> None:
    file = stored / "new" / "report"
    assert f"wrote {file}" in roots("report", stored / "one", "--format", form, "--output", file)
    written = file.read_text()
    assert written == roots("report", stored / "one" / "metrics.json", "--format", form)
    match form:
        case "json":
            assert RunMetrics.from_json(json.loads(written)) == RUN
        case "csv":
            assert len(list(csv.DictReader(written.splitlines()))) == 2
        case "junit":
            assert ElementTree.fromstring(written.encode()).find(".//failure") is not None
        case "table":
            assert "gate MISSED: max_bytes is 2,000,000, limit 1" in written
        case "html":
            assert "name: one  # of the run" in written
        case _:
            assert "quantize" in written


def test_a_run_that_is_named_twice_has_two_names(stored: Path) -> None:
    one, two = stored / "one", stored / "two"
    assert short_names([one, two, one / "metrics.json"]) == ["one (1)", "two", "one (2)"]


@pytest.mark.parametrize("form", ["table", "markdown", "json", "csv"])
def test_a_comparison_goes_to_a_file_as_it_goes_to_a_pipe(stored: Path, form: str) -> None:
    words = ("compare", stored / "one", stored / "two" / "metrics.json", "--format", form)
    file = stored / "compared"
    roots(*words, "--output", file)
    assert file.read_text() == roots(*words)
    if form == "json":
        compared = json.loads(file.read_text())
        assert compared["runs"] == ["one", "two"]
        assert compared["settings"] == [{"key": "seed", "values": ["0", "1"]}]


@pytest.mark.parametrize("place", ["one", "one/metrics.json/x", "/dev/null", f"{'x' * 300}", "locked/x"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(stored: Path, place: str) -> None:
    (stored / "locked").symlink_to(stored / "locked")
    for verb in (("report", stored / "gone"), ("compare", stored / "one", stored / "gone")):
        said = roots(*verb, "--output", stored / place, code=2)
        assert "gone" not in said, "the run is not even looked for"
        assert place[-20:] in said


def test_damaged_figures_are_refused_by_key(stored: Path) -> None:
    path = stored / "two" / "metrics.json"
    document = RUN.to_json()
    document["gates"][0]["limit"] = "1"
    path.write_text(json.dumps(document))
    assert "gates[0].limit: " in roots("report", stored / "two", "--format", "junit", code=2)
    path.write_text(json.dumps({**RUN.to_json(), "schema": 2}))
    assert "schema is 2, not 1" in roots("compare", stored / "one", stored / "two", code=2)
