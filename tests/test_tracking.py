"""Trackers record what a run measured, with their real libraries where these are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from roots_compress.errors import InputError
from roots_compress.events import (
    CandidateStarted,
    Event,
    Figure,
    RunFinished,
    RunStarted,
    StageStarted,
)
from roots_compress.tracking import TRACKERS, MLflow, TensorBoard, Tracker


def told(folder: Path) -> list[Event]:
    """Write what trackers keep of a run, and return its events."""
    folder.mkdir(parents=True)
    for name in ("recipe.yaml", "metrics.json", "report.html"):
        (folder / name).write_text(f"name: {name}\n")
    return [
        RunStarted("tiny", str(folder)),
        StageStarted(0, "train", "train"),
        *(Figure("loss", 5.0 - step, stage=0, work="training", step=step) for step in (1, 2)),
        Figure("perplexity", 40.0, stage=0),
        Figure("perplexity", None, stage=1),
        Figure("decode_tokens_per_second", 99.0, stage=0, context=16),
        RunFinished("tiny", str(folder)),
    ]


def record(tracker: Tracker, events: list[Event]) -> None:
    for event in events:
        tracker(event)
    tracker.close(False)


EXPECTED = {
    "00-train/training/loss": [(1, 4.0), (2, 3.0)],
    "stages/perplexity": [(0, 40.0)],
    "stages/decode_tokens_per_second_at_16": [(0, 99.0)],
}


@pytest.mark.slow
def test_tensorboard_reads_what_was_recorded(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said: list[str] = []
    record(TensorBoard(said.append), told(tmp_path / "run"))
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    scalars = {
        tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }
    assert scalars == EXPECTED
    (recipe,) = found.Tensors("recipe/text_summary")
    assert b"name: recipe.yaml" in recipe.tensor_proto.string_val[0]
    assert not said


@pytest.mark.slow
def test_mlflow_reads_what_was_recorded(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    said: list[str] = []
    record(MLflow(said.append), told(tmp_path / "run"))
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    found = {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert found == EXPECTED
    assert run.info.status == "FINISHED"
    kept = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert kept == {"recipe.yaml", "metrics.json", "report.html"}
    assert not said


class Memory(Tracker):
    """A tracker of its own, whose disk becomes full."""

    extra = "memory"

    def load(self) -> None:
        self.tags: list[str] = []
        self.ended: list[bool] = []

    def begin(self, name: str, folder: Path) -> None:
        self.tags.append(name)

    def record(self, tag: str, value: float, step: int) -> None:
        if tag.endswith("perplexity"):
            raise OSError("no room")
        self.tags.append(tag)

    def keep(self, folder: Path) -> None:
        raise AssertionError("it has stopped")

    def end(self, failed: bool) -> None:
        self.ended.append(failed)


def test_a_tracker_that_fails_says_so_once_and_stops(tmp_path: Path) -> None:
    said: list[str] = []
    tracker = Memory(said.append)
    events = told(tmp_path / "run")
    record(tracker, [events[0], CandidateStarted(3, 9, "a > b"), *events[1:], *events[3:]])
    assert tracker.tags == ["tiny", *["candidate-3/00-train/training/loss"] * 2]
    assert said == ["memory: nothing more is recorded: no room"]


def test_nothing_is_opened_for_a_run_that_measures_nothing(tmp_path: Path) -> None:
    tracker = Memory(print)
    record(tracker, told(tmp_path / "run")[:2])
    assert not tracker.tags
    assert not tracker.ended


@pytest.mark.parametrize("name", TRACKERS)
def test_a_library_that_is_lacking_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch.utils.tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match="is not installed") as caught:
        TRACKERS[name](print)
    assert f"roots-compress[{name}]" in str(caught.value)
