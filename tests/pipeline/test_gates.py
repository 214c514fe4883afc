"""Gates of a recipe, of its stages and against stored runs, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.cli.outcome import telling_failure
from roots_compress.configs.recipe.loading import resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.results import RunMetrics


class Run:
    """A finished run, and the recipe that it reuses every stage of."""

    def __init__(self, folder: Path, recipe: Recipe, finished: Path) -> None:
        self.folder, self.document = folder, resolved(recipe)
        shutil.copytree(finished, folder / "run")
        shutil.copy(finished / "metrics.json", folder / "before.json")

    def __call__(self, *options: str, gates: dict[str, Any], **of_stages: dict[str, Any]) -> tuple[int, str]:
        stages = [{**each, "gates": of_stages.get(each["kind"])} for each in self.document["stages"]]
        path = self.folder / "gated.yaml"
        path.write_text(json.dumps({**self.document, "gates": gates, "stages": stages}), encoding="utf-8")
        outcome = CliRunner().invoke(app, ["run", str(path), "--run", str(self.folder / "run"), *options])
        assert "Traceback" not in outcome.output
        assert "made again" not in outcome.output, "gates change no stage"
        return outcome.exit_code, outcome.stderr


@pytest.fixture
def run(chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path) -> Run:
    return Run(tmp_path, chain[0], chain[1])


def test_gates_are_kept_and_missed_per_stage_and_against_what_they_name(run: Run) -> None:
    report = run.folder / "ci" / "gates.xml"
    code, said = run(
        *("--junit", str(report)),
        gates={"against": "prune", "max_perplexity_ratio": 50.0, "min_size_ratio": 1.1, "max_bytes": 1},
        distill={"max_perplexity": 1e6, "max_peak_rss_bytes": 1},
        prune={"against": "./before.json", "max_perplexity_ratio": 1.01, "min_size_ratio": 0.99},
        quantize={"min_decode_speedup": 1000.0, "min_prefill_speedup": 0.001, "max_kl": 100.0},
    )
    assert code == 3
    assert "3 of 10 gates missed: max_bytes is " in said
    assert "; distill.max_peak_rss_bytes is " in said
    assert "; quantize.min_decode_speedup is " in said
    assert "gate kept: min_size_ratio is " in said
    assert "gate kept: quantize.max_kl is " in said
    assert "gate kept: prune.max_perplexity_ratio is 1 against tiny/prune, limit 1.01" in said
    judged = json.loads((run.folder / "run" / "metrics.json").read_text())["gates"]
    assert [gate["passed"] for gate in judged].count(False) == 3
    assert {gate["against"] for gate in judged} == {"", "prune", "tiny/prune", "baseline"}
    (suite,) = ElementTree.parse(report).getroot()
    assert (suite.attrib["tests"], suite.attrib["errors"]) == ("14", "0"), "four stages and ten gates"
    failures = {case.attrib["name"]: failure for case in suite for failure in case.iter("failure")}
    assert [*failures] == ["max_bytes", "distill.max_peak_rss_bytes", "quantize.min_decode_speedup"]
    assert failures["max_bytes"].attrib["message"].endswith(", limit 1")


def test_a_failed_run_says_so_in_junit_with_the_gates_that_can_be_judged(run: Run) -> None:
    report, folder = run.folder / "gates.xml", run.folder / "run"
    for stage in ("02-prune", "03-quantize"):
        shutil.rmtree(folder / stage)
    too_fast = {"steps": 3, "batch_size": 1, "block_size": 32, "warmup_ratio": 0.0, "learning_rate": 1e30}
    run.document["stages"][2] |= {"recovery": {"training": too_fast}}
    distill = {"max_perplexity": 1e6, "max_peak_rss_bytes": 1, "min_decode_speedup": 0.1}
    code, _ = run("--junit", str(report), gates={"max_bytes": 1}, distill=distill, quantize={"max_kl": 1.0})
    assert code == 1
    (suite,) = ElementTree.parse(report).getroot()
    outcomes = {case.attrib["name"]: case[0].tag for case in suite}
    passed, waiting = "system-out", "skipped"
    assert outcomes == {
        **{"baseline": passed, "distill": passed, "prune": "error", "quantize": waiting},
        **{"figures of the run": waiting, "max_bytes": waiting, "quantize.max_kl": waiting},
        **{"distill.max_perplexity": passed, "distill.max_peak_rss_bytes": "failure"},
        "distill.min_decode_speedup": waiting,
    }
    assert "02 prune failed: the gradient" in suite[2][0].attrib["message"]
    again = CliRunner().invoke(app, ["report", str(folder), "--format", "junit"])
    assert (again.exit_code, again.output) == (0, report.read_text())
    # The figures there are those of the first attempt.
    for form in ("table", "markdown", "html", "csv"):
        shown = CliRunner().invoke(app, ["report", str(folder), "--format", form]).output
        assert "earlier attempt" in shown
        assert "02 prune failed: the gradient" in " ".join(shown.split())

    def stop(report: Path) -> None:
        with pytest.raises(KeyboardInterrupt), telling_failure(report, folder):
            raise KeyboardInterrupt

    stop(report)
    assert report.read_text() == again.output
    # What goes wrong with the file does not hide why the run ended.
    stop(Path("/proc/none/report.xml"))
    (folder / "resolved.json").write_text("{}")
    stop(report)
    assert not report.exists()


@pytest.mark.parametrize(
    ("against", "change", "said"),
    [
        ("./gone", {}, "gone' does not exist"),
        ("./", {}, "there is no finished run here"),
        ("./run", {}, "is the run itself"),
        ("./before.json", {"schema": 2}, "schema is 2, not 1"),
        ("./before.json", {"task": "masked_lm"}, "stages[0].pseudo_perplexity is missing"),
        ("./before.json", {"protocol": "text_sha256"}, "gates.max_perplexity_ratio: cannot be compared with"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    run: Run, against: str, change: dict[str, Any], said: str
) -> None:
    stored = run.folder / "before.json"
    document = json.loads(stored.read_text())
    if "protocol" in change:
        change = {"protocol": {**document["protocol"], change["protocol"]: "0" * 64}}
    stored.write_text(json.dumps({**document, **change}))
    before = (run.folder / "run" / "metrics.json").stat().st_mtime_ns
    code, told = run(gates={"against": against, "max_perplexity_ratio": 1.0})
    assert code == 2, told
    assert said in told
    assert (run.folder / "run" / "metrics.json").stat().st_mtime_ns == before


def test_an_unwritable_report_of_gates_is_refused_before_any_work(run: Run) -> None:
    for place in ("run/metrics.json", "run/00-baseline/x.xml", "before.json/x.xml", "run"):
        code, told = run("--junit", str(run.folder / place), gates={})
        assert code == 2, told
        assert place.partition("/")[0] in told
