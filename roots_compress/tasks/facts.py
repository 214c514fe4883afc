"""The facts of a task without a model: its name, its figures, and its models' inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from roots_compress.tasks.figures.figures import AGREEMENT, Metric, Workload, counted, gates_on

if TYPE_CHECKING:
    from roots_compress.configs.data import RecordKind
    from roots_compress.results import Protocol


class TaskFacts:
    """The facts of a task, and what follows from them."""

    name: ClassVar[str]
    """Its name in `metrics.json` and in requests."""
    heads: ClassVar[tuple[str, ...]]
    """Endings of model classes for this task, as `architectures` of config.json names them."""
    head_kind: ClassVar[str]
    """The kind of head (`models/ops/heads.py`) that such a model's specification has."""
    optimum_name: ClassVar[str]
    """The task in optimum's words."""
    metrics: ClassVar[tuple[Metric, ...]]
    """The first is the main metric: reports compare by it, graph and checkpoint must agree in it, searches
    use it."""
    workloads: ClassVar[tuple[Workload, ...]]
    """The last is the main workload: reports give its gain, and targets in milliseconds apply to it."""
    records: ClassVar[RecordKind] = "text"
    """The kind of the data's records."""
    tuned_on: ClassVar[RecordKind | None] = None
    """The kind of records if a stage tunes the models; None if they cannot be tuned."""
    predicts: ClassVar[bool] = True
    """Whether models give probabilities of tokens or labels; otherwise they can be trained only with a
    teacher."""
    compares: ClassVar[bool] = False
    """Whether quality itself is similarity to the run's first model."""
    reads: ClassVar[str] = "context"
    """The input of a workload, as a singular noun; the timed lengths are its tokens."""
    writes: ClassVar[bool] = False
    """Whether models write text, token by token."""
    agreement: ClassVar[tuple[float, float]]
    """The most that the first metric (its logarithm, if relative) may differ between graph and checkpoint: in
    float32, and if each side rounds on its own."""
    longest_row: ClassVar[int] = 40
    """Tokens of the longest row in a parity check; fewer if the model's context is shorter."""
    decoded: ClassVar[int] = 6
    """Tokens in it that are decoded one at a time."""
    pretrains: ClassVar[bool] = False
    """Whether `pretraining` is for models of this task."""

    @property
    def writes_unasked(self) -> bool:
        """Whether models write text without a source, such as calibration text."""
        return self.writes and self.records != "pairs"

    @property
    def metric(self) -> Metric:
        """The main metric."""
        return self.metrics[0]

    @property
    def agreement_metrics(self) -> tuple[Metric, ...]:
        """Further figures of similarity to the run's first model, which tables leave out."""
        return AGREEMENT if self.predicts else ()

    @property
    def workload(self) -> Workload:
        """The main workload."""
        return self.workloads[-1]

    @property
    def checkpoint_figure(self) -> str:
        """The key of the first metric as measured through the checkpoint's own model."""
        return f"torch_{self.metric.name}"

    def summary(self, quality: Mapping[str, float]) -> str:
        """Return the main figure, in words."""
        return f"{self.metric.heading} {self.metric.shown(quality[self.metric.name])}"

    @property
    def gates(self) -> frozenset[str]:
        """The names of the gates that bound this task's figures."""
        return gates_on((*self.metrics, *self.agreement_metrics), self.workloads)

    @property
    def budgets(self) -> frozenset[str]:
        """The gates that a search uses: those on the main figures."""
        return gates_on((self.metric,), (self.workload,))

    def speed_caption(self, protocol: Protocol) -> str:
        """Describe the work for the speed."""
        contexts = " / ".join(str(context) for context in sorted(protocol.contexts))
        threads = counted(protocol.threads, "thread")
        batch, gain = self.timed(protocol)
        return (
            f"Speed: {batch}, {threads}, medians of {protocol.repeats} interleaved repeats, for "
            f"{self.reads}s of {contexts} tokens. {gain}"
        )

    def timed(self, protocol: Protocol) -> tuple[str, str]:
        """Return the batch and the kind of gain for `speed_caption`."""
        raise NotImplementedError
