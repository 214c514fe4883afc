"""A run as it is foreseen: shapes, bytes and what is reused; and a recipe tried in small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from roots_compress.cli.app import app
from roots_compress.configs.recipe.loading import resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.events import Event, Events, Message, WorkAdvanced, WorkFinished, WorkStarted
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast import forecast as foreseen
from roots_compress.pipeline.forecast import outlook, pace
from roots_compress.pipeline.forecast.costs import Line, RowCosts, TrainingCosts
from roots_compress.pipeline.forecast.expected_rows import ExpectedRow, expected_rows
from roots_compress.pipeline.forecast.forecast import forecast
from roots_compress.pipeline.forecast.outlook import expected_seconds
from roots_compress.pipeline.forecast.table import summary_lines
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.statuses import statuses_of
from roots_compress.results import RunMetrics
from roots_compress.run.stages import read_stages
from tests.chains import DISTILL, PRUNE, QUANTIZE, TRAIN, recipe
from tests.specs import bert, gemma, seq2seq, with_experts

QUIET = Events()


@pytest.fixture
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings are repeated, as users have them."""
    pace._pace.cache_clear()
    monkeypatch.setattr(pace, "STEADY_SECONDS", 0.1)
    monkeypatch.setattr(pace, "SHORT_SECONDS", 0.1)


def written(recipe: Recipe, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(resolved(recipe)), encoding="utf-8")  # JSON is YAML.
    return path


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.usefixtures("_steady")
def test_shapes_and_bytes_are_those_of_the_run(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path
) -> None:
    wanted, _, metrics = chain
    told: list[Event] = []
    expected = forecast(prepare(wanted, tmp_path / "run"), tmp_path / "run", Events(told.append))
    assert [each.action for each in expected.stages] == ["make"] * 4
    for each, row in zip(expected.stages, metrics.stages, strict=True):
        assert each.parameters == row.metrics.parameters
        assert each.graph_bytes == pytest.approx(row.metrics.bytes, rel=0.02)
        assert each.certain
        assert each.work_seconds >= 0
        assert each.check_seconds > 0
        # Both were measured in this process, which holds more at one time than at another.
        assert row.making_rss_bytes is not None
        assert 0.4 < each.memory_bytes / row.making_rss_bytes < 2.5
        # Tiny models take a tenth of a second, of which what a process does for the first time is the most.
        assert 0.1 < each.seconds / row.whole_seconds < 10
    whole = sum(each.seconds for each in expected.stages) / sum(row.whole_seconds for row in metrics.stages)
    assert 0.2 < whole < 5
    assert [each.shape.layers for each in expected.stages] == [(4,), (2,), (2,), (2,)]
    assert [each.shape.channels for each in expected.stages] == [(64, 64), (64, 64), (48, 48), (48, 48)]
    assert expected.seconds is not None
    assert expected.seconds > sum(each.seconds for each in expected.stages)
    assert not (tmp_path / "run").exists()
    # How far the probe is: a row of the run, and then each of the two stages that train.
    assert [type(each) for each in told] == [Message, WorkStarted, *[WorkAdvanced] * 3, WorkFinished]
    counts = [(each.done, each.total) for each in told if isinstance(each, WorkAdvanced)]
    assert counts == [(1, 3), (2, 3), (3, 3)]


def test_what_is_finished_is_reused_and_takes_no_probe(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    wanted, folder, metrics = chain
    expected = forecast(prepare(wanted, folder), folder, QUIET)
    assert [each.action for each in expected.stages] == ["reuse"] * 4
    assert [each.graph_bytes for each in expected.stages] == [row.metrics.bytes for row in metrics.stages]
    assert expected.probe_seconds == 0
    assert expected.to_make == ()


@pytest.mark.usefixtures("_steady")
def test_a_run_tells_about_how_long_its_rows_take(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, folder, metrics = chain
    took = {(row.kind, row.name): row.whole_seconds for row in metrics.stages}
    setting = prepare(wanted, tmp_path / "run")
    foreseen = expected_seconds(setting, tmp_path / "run", [])
    assert foreseen.keys() == took.keys()
    # Rows of tiny models take less than the seconds that each row counts besides its passes.
    assert all(0.1 * took[row] < foreseen[row] < outlook.ROW_SECONDS + 10 * took[row] for row in took)
    assert expected_seconds(prepare(wanted, folder), folder, read_stages(folder)[0]) == took

    def fails(*_: object, **__: object) -> float:
        raise RuntimeError("no memory")

    monkeypatch.setattr(outlook, "pace", fails)
    assert expected_seconds(setting, tmp_path / "run", []) == {}


@pytest.mark.parametrize("spec", [gemma(), bert(), with_experts(), seq2seq()])
def test_a_layer_of_any_model_is_timed(spec: ModelSpec) -> None:
    assert pace.pace(spec, threads=1) > 0


@pytest.mark.parametrize(("seconds", "times"), [((0.4, 0.2, 0.3), 3), ((1.2, 1.1, 1.1), 2)])
def test_long_work_is_timed_twice(
    seconds: tuple[float, ...], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, left = [0.0], iter(seconds)

    def work() -> None:
        clock[0] += next(left)

    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert pace.least_seconds(work) == pytest.approx(min(seconds))
    assert len([*left]) == len(seconds) - times


NONE = Line(0.0, 0.0)


class Measured:
    """A machine on which memory alone is told apart, and what is named."""

    examples = 1

    def __init__(
        self, peak: Line = NONE, training: float = 0.0, *, passes: Line = NONE, fast: Line = NONE
    ) -> None:
        self.passes, self.fast_passes, self.written = passes, fast, list[tuple[int, int]]()
        self.costs = RowCosts(NONE, NONE, {}, 0.0, peak)
        self._training = TrainingCosts(NONE, NONE, Line(training, 0.0))

    def writing(self, windows: int, length: int) -> Line:
        self.written.append((windows, length))
        return NONE

    def training(self, *_: object) -> TrainingCosts:
        return self._training


def test_memory_is_what_a_stage_holds_or_what_checking_it_takes(
    chain: tuple[Recipe, Path, RunMetrics],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = chain[1] / "00-baseline" / "checkpoint"
    setting = prepare(recipe(text_file, DISTILL, PRUNE, model=str(model)), tmp_path / "run")

    def memory(peak: Line, training: float = 0.0) -> tuple[int, ...]:
        monkeypatch.setattr(foreseen, "Probe", lambda *_: Measured(peak, training))
        return tuple(each.memory_bytes for each in forecast(setting, tmp_path / "run", QUIET).stages)

    plain = forecast(setting, tmp_path / "run", QUIET, measured=False)
    first, student, pruned = (each.checkpoint_bytes for each in plain.stages)
    held = 4 * (12 + 2) * 32 * 32  # The stream of all windows, of text and of the model's own, in float32.
    base = 10**6
    working = base + first + student, base + student + pruned + held
    assert memory(Line(base, 0.0)) == (base, *working)
    assert memory(Line(base, 0.0), 7e7) == (base, 7 * 10**7, working[1])
    assert memory(Line(0.0, 1000.0)) == (1000 * first,) * 3


def test_work_is_counted_in_what_it_takes(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    model = str(chain[1] / "00-baseline" / "checkpoint")
    training = {"steps": 10, "batch_size": 2, "block_size": 32}
    stages = [PRUNE, {**PRUNE, "name": "again", "recovery": {"training": training}}, QUANTIZE]
    setting = prepare(recipe(text_file, *stages, model=model), tmp_path / "run")
    plain, recovered, quantized = expected_rows(setting, statuses_of(setting, tmp_path / "run"))[1:]

    def work(row: ExpectedRow, *, passes: Line = NONE, fast: Line = NONE) -> float:
        return row.work_seconds(Measured(passes=passes, fast=fast), None)

    once = Line(1.0, 0.0)
    # The stream passes in the fastest precision; what is measured and refitted on it does not.
    assert 0 < work(plain, passes=once) < work(plain, fast=once)
    # A training is judged on 20 windows, before it and after.
    assert work(recovered, passes=once) - work(plain, passes=once) == pytest.approx(2 * 20 * 32)
    assert work(quantized, fast=once) == 0 < work(quantized, passes=once)
    for row in (plain, quantized):
        machine = Measured()
        row.work_seconds(machine, None)
        assert row.config is not None
        assert machine.written == [(2, 32)]


def test_a_search_is_part_of_what_a_run_takes(text_file: Path, tmp_path: Path) -> None:
    search = {"max_minutes": 60.0, "choices": [PRUNE, QUANTIZE]}
    wanted = recipe(text_file, TRAIN, search=search, gates={"max_perplexity_ratio": 2.0})
    expected = forecast(prepare(wanted, tmp_path / "run"), tmp_path / "run", QUIET, measured=False)
    train, (prune, quantize) = expected.stages[0], expected.search
    sizes = [each.checkpoint_bytes + each.graph_bytes for each in (train, prune, quantize)]
    working = max(each.working_bytes for each in (train, prune, quantize))
    assert expected.disk_bytes == sum(sizes) + working
    finished = replace(
        expected,
        stages=(replace(train, action="reuse"),),
        search=(replace(prune, memory_bytes=10**15), quantize),
        timing_seconds=3.0,
        probe_seconds=2.0,
        available_memory_bytes=10**9,
    )
    told = [*summary_lines(finished)]
    assert told[0].startswith("The run takes about 3.0 s before the search (")
    assert told[1:3] == [
        "The search begins no new candidate after 60 minutes.",
        "Memory may not suffice: 1.00 GB are available.",
    ]


def test_plan_tells_shapes_bytes_and_what_later_stages_cannot_do(text_file: Path, tmp_path: Path) -> None:
    path = written(recipe(text_file, TRAIN, DISTILL, PRUNE, QUANTIZE), tmp_path)
    result = command("plan", path, "--run", tmp_path / "run", "--no-probe")
    assert result.exit_code == 0, result.output
    assert "02 prune: 2 layers of width 32, 2 heads (1 key/value) of 16, 48 MLP channels" in result.stdout
    assert "times and memory were not measured" in result.stdout
    narrow = {**PRUNE, "ratio": 0.5, "multiple_of": 48, "name": "again"}
    path = written(recipe(text_file, TRAIN, DISTILL, PRUNE, narrow), tmp_path)
    refused = command("plan", path, "--run", tmp_path / "run", "--no-probe")
    assert refused.exit_code == 2
    assert "stages[3].ratio" in refused.stderr
    assert "no multiple of 48 is below 48" in refused.stderr


def test_a_rehearsal_finds_what_fails_in_a_later_stage(text_file: Path, tmp_path: Path) -> None:
    few = {**PRUNE, "own_windows": 0, "calibration": {"windows": 1, "block_size": 8}}
    path = written(recipe(text_file, TRAIN, DISTILL, few, QUANTIZE), tmp_path)
    result = command("run", path, "--run", tmp_path / "run", "--rehearse")
    assert result.exit_code == 2, result.output
    said = [line.partition(" (")[0] for line in result.stdout.splitlines()]
    assert said == [
        "train: works",
        "distill: works",
        "prune: fails",
        "quantize: works",
        "timing, report and gates: works",
    ]
    assert "stages[2].calibration" in result.stderr
    assert "calibration windows of 8 tokens are too few" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_rehearsal_of_a_model_leaves_the_run_as_it_is(
    chain: tuple[Recipe, Path, RunMetrics], text_file: Path, tmp_path: Path
) -> None:
    _, folder, _ = chain
    target = {**PRUNE, "target": {"bytes": 100_000}, "layer_ratio": 0.0}
    del target["ratio"]
    gates = {"max_perplexity_ratio": 1e-6}
    wanted = recipe(
        text_file, target, QUANTIZE, model=str(folder / "00-baseline" / "checkpoint"), gates=gates
    )
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    result = command("run", written(wanted, tmp_path), "--run", tmp_path / "run", "--rehearse")
    assert result.exit_code == 0, result.output
    assert "quantize: works" in result.stdout
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    assert not (tmp_path / "run").exists()
