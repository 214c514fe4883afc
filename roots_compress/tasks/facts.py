"""What is known of a task without a model: its name, its figures, and what models for it read and give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from roots_compress.tasks.figures.figures import AGREEMENT, Metric, Workload, counted, gates_on

if TYPE_CHECKING:
    from roots_compress.configs.data import RecordKind
    from roots_compress.results import Protocol


class TaskFacts:
    """What a task says of itself, and what follows from it."""

    name: ClassVar[str]
    """In `metrics.json`, and where a request says which task is meant."""
    heads: ClassVar[tuple[str, ...]]
    """A class of models, as `architectures` of config.json names it, is for this task if it ends so."""
    head_kind: ClassVar[str]
    """The kind of head (`models/ops/heads.py`) that such a model's specification has."""
    optimum_name: ClassVar[str]
    """The task in optimum's words."""
    metrics: ClassVar[tuple[Metric, ...]]
    """The first decides: reports compare by it, graph and checkpoint must agree in it, search weighs it."""
    workloads: ClassVar[tuple[Workload, ...]]
    """The last decides: reports give its gain, and targets in milliseconds are its."""
    records: ClassVar[RecordKind] = "text"
    """What each record of the data holds."""
    tuned_on: ClassVar[RecordKind | None] = None
    """What it holds where a stage tunes the models to answer; None where nothing tells them what is right."""
    predicts: ClassVar[bool] = True
    """Whether models give probabilities of what text or labels say; else there is nothing to train by, but a
    teacher."""
    compares: ClassVar[bool] = False
    """Whether quality itself is likeness to the run's first model."""
    reads: ClassVar[str] = "context"
    """What a workload reads first, in the singular; the lengths that are timed are its tokens."""
    writes: ClassVar[bool] = False
    """Whether models write text, token by token."""
    agreement: ClassVar[tuple[float, float]]
    """By how much the first metric may differ between graph and checkpoint, in float32 and where each side
    rounds on its own: of a relative metric, by how much its logarithm may."""
    longest_row: ClassVar[int] = 40
    """Tokens of the longest row that a parity check compares; fewer where the model's context is shorter."""
    decoded: ClassVar[int] = 6
    """Tokens of such a comparison that are decoded one at a time."""
    pretrains: ClassVar[bool] = False
    """Whether `pretraining` is for models of this task."""

    @property
    def writes_unasked(self) -> bool:
        """Whether models write text that answers no source, such as text to be calibrated on."""
        return self.writes and self.records != "pairs"

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    @property
    def agreement_metrics(self) -> tuple[Metric, ...]:
        """Figures of likeness to the run's first model beside quality, which tables leave out."""
        return AGREEMENT if self.predicts else ()

    @property
    def workload(self) -> Workload:
        """The workload that decides."""
        return self.workloads[-1]

    @property
    def checkpoint_figure(self) -> str:
        """The key of the first metric as measured through the checkpoint's own model."""
        return f"torch_{self.metric.name}"

    def summary(self, quality: Mapping[str, float]) -> str:
        """Return the figure that decides, in words."""
        return f"{self.metric.heading} {self.metric.shown(quality[self.metric.name])}"

    @property
    def gates(self) -> frozenset[str]:
        """The names of the gates that bound this task's figures."""
        return gates_on((*self.metrics, *self.agreement_metrics), self.workloads)

    @property
    def budgets(self) -> frozenset[str]:
        """Those of the gates that a search weighs: on the figures that decide."""
        return gates_on((self.metric,), (self.workload,))

    def speed_caption(self, protocol: Protocol) -> str:
        """Say what speed was measured on."""
        contexts = " / ".join(str(context) for context in sorted(protocol.contexts))
        threads = counted(protocol.threads, "thread")
        batch, gain = self.timed(protocol)
        return (
            f"Speed: {batch}, {threads}, medians of {protocol.repeats} interleaved repeats, for "
            f"{self.reads}s of {contexts} tokens. {gain}"
        )

    def timed(self, protocol: Protocol) -> tuple[str, str]:
        """Return the batch, and what the gain is, as `speed_caption` has them."""
        raise NotImplementedError
