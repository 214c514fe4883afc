"""Trackers of experiments: TensorBoard and MLflow, told of a run's figures as it makes them.

A tracker is a sink of events. It writes to local folders only. Where it fails, the run goes on without it.

To add one: a subclass of `Tracker`, and its entry in TRACKERS.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from roots_compress.errors import InputError
from roots_compress.events import (
    CandidateChosen,
    CandidateStarted,
    Event,
    Figure,
    RunFinished,
    RunStarted,
    StageStarted,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

RECIPE, METRICS, REPORT = "recipe.yaml", "metrics.json", "report.html"
"""Files of a run that trackers keep."""


class Tracker(ABC):
    """A sink of events that records figures.

    Figures of trainings are recorded by their steps, under the stage; those of finished stages by the index
    of the stage, so that a curve shows what each stage changed.

    Args:
        tell: told why the tracker stopped, if it did.

    Raises:
        InputError: its library is not installed.
    """

    extra: str
    """The extra of this package that installs its library."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._run: RunStarted | None = None
        self._candidate, self._stage = "", ""
        self._opened = self._stopped = False
        try:
            self.load()
        except ImportError as error:
            raise InputError(
                f"{self.extra} is not installed ({error})",
                where="--track",
                remedy=f"Install it: pip install 'roots-compress[{self.extra}]'",
            ) from error

    def __call__(self, event: Event) -> None:
        """Record what an event says."""
        match event:
            case RunStarted():
                self._run = event
            case CandidateStarted(number):
                self._candidate = f"candidate-{number}/"
            case CandidateChosen():
                self._candidate = ""
            case StageStarted(index, kind):
                self._stage = f"{index:02d}-{kind}"
            case Figure(name, float() | int() as value, stage, work, step, context):
                tag = f"{self._stage}/{work}/{name}" if work else f"stages/{name}"
                at = step if step is not None else stage or 0
                length = "" if context is None else f"_at_{context}"
                self._try(lambda: self.record(f"{self._candidate}{tag}{length}", float(value), at))
            case RunFinished(_, folder):
                self._try(lambda: self.keep(Path(folder)))

    def close(self, failed: bool) -> None:
        """End the record."""
        if self._opened:
            self._try(lambda: self.end(failed))
            self._stopped = True

    def _try(self, action: Callable[[], None]) -> None:
        if self._stopped or self._run is None:
            return
        try:
            if not self._opened:
                self.begin(self._run.name, Path(self._run.folder))
                self._opened = True
            action()
        except Exception as error:  # What a library raises when its disk is full is its own affair.
            self._stopped = True
            self._tell(f"{self.extra}: nothing more is recorded: {error}")

    @abstractmethod
    def load(self) -> None:
        """Import the library."""

    @abstractmethod
    def begin(self, name: str, folder: Path) -> None:
        """Open the record of a run."""

    @abstractmethod
    def record(self, tag: str, value: float, step: int) -> None:
        """Record a figure."""

    @abstractmethod
    def keep(self, folder: Path) -> None:
        """Keep what lies in the folder of a run that is complete."""

    @abstractmethod
    def end(self, failed: bool) -> None:
        """Close the record."""


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard; `tensorboard --logdir runs` shows all runs."""

    extra = "tensorboard"
    _writer: SummaryWriter

    def load(self) -> None:
        import torch.utils.tensorboard  # noqa: F401

    def begin(self, name: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def record(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def keep(self, folder: Path) -> None:
        text = (folder / RECIPE).read_text(encoding="utf-8")
        self._writer.add_text("recipe", "".join(f"    {line}\n" for line in text.splitlines()))

    def end(self, failed: bool) -> None:
        self._writer.close()


class MLflow(Tracker):
    """A database beside the run's folder: `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`."""

    extra = "mlflow"
    _client: MlflowClient
    _id: str

    def load(self) -> None:
        """Import the library, which shall send nothing anywhere."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        import mlflow  # noqa: F401

    def begin(self, name: str, folder: Path) -> None:
        """Begin a run of the experiment that has the name of the recipe."""
        from mlflow import MlflowClient

        around = folder.resolve().parent
        self._client = MlflowClient(f"sqlite:///{(around / 'mlflow.db').as_posix()}")
        known = self._client.get_experiment_by_name(name)
        experiment = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(name, artifact_location=(around / "mlruns").as_uri())
        )
        self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id

    def record(self, tag: str, value: float, step: int) -> None:
        self._client.log_metric(self._id, tag, value, step=step)

    def keep(self, folder: Path) -> None:
        for name in (RECIPE, METRICS, REPORT):
            self._client.log_artifact(self._id, str(folder / name))

    def end(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


TRACKERS: dict[str, type[Tracker]] = {each.extra: each for each in (TensorBoard, MLflow)}
"""By the names that `--track` takes."""
